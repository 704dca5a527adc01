"""Where acquisitions come from: one module per kind of file, all behind the protocol `base.Source`."""
