"""The connectivity doctor's parts: each end of a link by itself, without a rendezvous."""
