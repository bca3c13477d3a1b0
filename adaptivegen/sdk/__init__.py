"""The client side: what an application uses to reach an edge. `Client` (blocking) and `AsyncClient` (asyncio)."""
