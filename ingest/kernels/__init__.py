"""The wire's inner loops as machine code: scan, look-up, decode, and the calls to sockets between them.

Owns nothing that has a meaning: each kernel does what a plain Python function elsewhere does too, for the
common case, and says which messages it left. Needs numba (extra ``fast``); ``ingest.kernels.compiling``
says whether it is there. Nothing here is imported where it is not.
"""
