def write_page(out):
    return f"{out}/report.html"
