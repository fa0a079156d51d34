"""Services in the kernel: what reaches a service's address goes to one of its endpoints, by nftables."""
