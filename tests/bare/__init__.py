"""Installation on a bare Debian, in a chroot: `make bare`. No test of pytest, for it takes minutes and the network."""
