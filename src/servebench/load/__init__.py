"""The load client: closed-loop clients in processes of their own, over sockets that the kernel stamps."""
