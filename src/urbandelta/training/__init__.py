"""Fitting the network; everything here needs the extra `train` (torch, lightning, torchmetrics)."""
