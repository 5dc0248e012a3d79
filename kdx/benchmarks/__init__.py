"""How fast kdx is: runs beside a bare PyTorch loop, the way from files to pixels, and losses by their number of classes."""
