"""Everything that touches the world: brokers, stores, files, processes, the clock. Implements the rooms' ports."""
