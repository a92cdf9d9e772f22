"""Clustering, its selection, the ledger of segment identities, profiles and names. Pure."""
