"""A model bundle on disk becomes a checked Model; a client's volumes become a Case on its grid."""
