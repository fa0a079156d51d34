"""The control plane under kills, stalls, full disks, wrong clocks and junk: nothing is lost, nobody is killed."""
