"""Marks for submissions: ``submission`` reads them, ``grade`` judges them, ``report`` tells."""
