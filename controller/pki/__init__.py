"""controller.pki: the cluster's own CA, its certificates, keys and tokens. See files.py for what lies where."""
