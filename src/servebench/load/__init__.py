"""The load client: closed or open loop, in separate processes, over sockets whose bytes the kernel stamps."""
