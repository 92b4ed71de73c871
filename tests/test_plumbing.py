"""The optimiser that is written by hand, against torch's and against the singular values."""

import torch

from plumbing import Muon, orthogonal


def test_orthogonal_keeps_the_singular_vectors_and_brings_the_values_near_one():
    torch.manual_seed(0)
    for shape in [(8, 8), (24, 8), (8, 24)]:
        g = torch.randn(shape)
        u, _, vt = torch.linalg.svd(g, full_matrices=False)
        values = u.T @ orthogonal(g) @ vt.T
        assert (values - values.diag().diag()).abs().max() < 1e-4
        assert values.diag().min() > 0.6 and values.diag().max() < 1.25


def test_muon_goes_where_torchs_muon_goes():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in [(8, 24), (24, 8)]]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    settings = dict(lr=0.1, weight_decay=0.1, momentum=0.9)
    one, other = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for step in range(5):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        one.step(), other.step()
    for p, q in zip(ours, theirs):          # torch's orthogonalises in bfloat16
        torch.testing.assert_close(p, q, atol=0.02, rtol=0)
