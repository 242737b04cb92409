"""What can be learnt at all: from the graph, and from the data before any estimate."""
