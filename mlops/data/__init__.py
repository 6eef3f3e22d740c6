"""Tables: loading, splitting, generating, and the preprocessing fitted on them."""
