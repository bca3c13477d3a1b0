"""Where the nodes are: a port, a file, a bucket of the broker, Consul, and the measuring of which is nearest."""
