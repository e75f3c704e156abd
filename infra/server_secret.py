"""Secrets all programs of one installation share: made once, by whoever starts first, and kept in the directory."""

from contracts.clock import Ids
from contracts.directory import ServerSecret, secret_key
from contracts.errors import Stale
from gateway.ports import DirectoryStore, Write

SECRET_BYTES = 32


async def server_secret(store: DirectoryStore, name: str, ids: Ids) -> bytes:
    """The secret of this name; a fresh one if there is none yet. Raises `Unavailable` when the directory is away."""
    key = secret_key(name)
    found = await store.get(key, ServerSecret, fresh=True)
    if found is None:
        fresh = ServerSecret(value=ids.secret(SECRET_BYTES).hex())
        try:
            await store.transact([Write(key=key, record=fresh, expected_seq=0)])
        except Stale:
            return await server_secret(store, name, ids)
        return bytes.fromhex(fresh.value)
    return bytes.fromhex(found.record.value)
