"""The applications that use the stores: how they are stopped, started, switched and asked."""
