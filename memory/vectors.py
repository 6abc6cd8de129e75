"""The vector index: the only file that knows Qdrant, embedded (Qdrant Edge) or as a server, with one behaviour.

A collection holds ids, vectors and what searches filter by, never words: those come from the journal, so that what is
forgotten there cannot live on here. Its name carries embedder, dimension and schema version; `switch` moves the alias
to a new collection when it is complete, with the embedder's name beside it, since who wants to ask the old one of its
vectors must load that. The engine in this process allows one process per folder.
"""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote
from uuid import UUID

import numpy as np

from infra.errors import ServiceTrouble
from infra.files import write_atomic
from memory.ranking import Hit
from memory.terms import Sparse

SCHEMA = 3
# The first schema whose collections this code can still search and add to, if not make.
READABLE = 2
ALIAS = "understudy"
# Qdrant's own constant of reciprocal rank fusion (Cormack, Clarke and Buettcher 2009).
RRF_K = 2
FILTERS = ("kind", "community", "visibility")
TENANT = "community"
PLACE = ("section", "position")
# How many times as many as are wanted the vectors in four bits bring up. With two, among 100,000 vectors like those of
# texts, all of the best hundred were found, in 3 ms; scalar quantisation to eight bits found 98 of them in 5 ms.
OVERSAMPLING = 2.0
# How long a server may take for an answer, in seconds; filling a collection, it has a thousand points at a time.
ANSWER_S = 10
# Under which key a server keeps with a collection who filled it.
EMBEDDER = "embedder"


@dataclass(frozen=True)
class Vector:
    """One exchange or passage as the index keeps it.

    `section` names the part of a document that a passage stands in, and `position` its place there; it is empty for an
    exchange. `dense` is None where the embedder of the collection is not to be had any more.
    """

    id: str
    kind: str
    community: str
    visibility: str
    dense: np.ndarray | None
    sparse: Sparse
    section: str = ""
    position: int = 0

    @property
    def payload(self) -> dict[str, Any]:
        """What is kept beside the vectors."""
        place = {"section": self.section, "position": self.position} if self.section else {}
        return {field: getattr(self, field) for field in FILTERS} | place


@dataclass(frozen=True)
class Scope:
    """What a search may see."""

    community: str = "main"
    visibility: tuple[str, ...] = ("public",)


def hit(identity: Any, score: float, payload: Any) -> Hit:
    """What an engine found."""
    key = (identity if isinstance(identity, UUID) else UUID(identity)).int
    return Hit(key, score, payload.get("section", ""), payload.get("position", 0)) if payload else Hit(key, score)


class Collection(Protocol):
    """One set of vectors."""

    def upsert(self, vectors: Sequence[Vector]) -> None: ...
    def delete(self, ids: Sequence[str]) -> None: ...
    def dense(self, vector: np.ndarray, scope: Scope, limit: int) -> list[Hit]: ...
    def sparse(self, query: Sparse, scope: Scope, limit: int) -> list[Hit]: ...
    def known(self, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that it holds."""

    def count(self) -> int: ...
    def settle(self) -> None:
        """Make searches fast after much was added; the engine in this process holds everything up for seconds."""

    def flush(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Current:
    """The collection that answers, and the embedder that its vectors are of; empty where that was not kept."""

    name: str
    embedder: str = ""

    @property
    def readable(self) -> bool:
        """Whether this code can search it."""
        return int(self.name.rpartition("_v")[2]) >= READABLE

    @property
    def dimension(self) -> int:
        return int(self.name.split("_")[-2])


class Store(Protocol):
    """Where collections live, and which of them answers."""

    def current(self) -> Current | None: ...
    def open(self, name: str, dimension: int) -> Collection: ...
    def switch(self, name: str, embedder: str) -> None:
        """Let `name`, which `embedder` has filled, answer from now on."""

    def sweep(self, *kept: str) -> None:
        """Remove all collections but those that are kept."""


def collection_name(embedder: str, dimension: int) -> str:
    """The name of the collection that this embedder fills."""
    plain = re.sub(r"[^a-z0-9]+", "-", embedder.casefold()).strip("-")
    return f"{ALIAS}_{plain}_{dimension}_v{SCHEMA}"


class EdgeStore:
    """Collections of the engine in this process, one folder each, beside a file that names the one that answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> Current | None:
        alias = self._folder / ALIAS
        return Current(*alias.read_text(encoding="utf-8").splitlines()) if alias.is_file() else None

    def open(self, name: str, dimension: int) -> "EdgeCollection":
        """The collection, made when it is not there. Raises ServiceTrouble when another process holds it."""
        return EdgeCollection(self._folder / name, dimension)

    def switch(self, name: str, embedder: str) -> None:
        """Let `name`, which `embedder` has filled, answer from now on."""
        write_atomic(self._folder / ALIAS, f"{name}\n{embedder}\n")

    def sweep(self, *kept: str) -> None:
        """Remove all collections but those that are kept."""
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder.name not in kept:
                shutil.rmtree(folder)


class EdgeCollection:
    """Qdrant Edge shards, one for each community and visibility.

    A search reads only the shards it may see: so nothing private can be found elsewhere, and no search pays for a
    filter, which takes the engine longer than the search itself. The write-ahead log makes every update survive a kill.

    Beside each that holds no passage stands a mark that says so: where nothing has a place in a document, none is asked
    for, which would take about as long as the search.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder, self._dimension = folder, dimension
        self._shards: dict[tuple[str, str], Any] = {}
        # To be made durable, which costs as much for a shard that has not changed; and those without passages.
        self._changed: set[tuple[str, str]] = set()
        self._placeless: set[tuple[str, str]] = set()
        everybody = Scope()
        # The first is always there: whoever opens it owns them all.
        self._shard(everybody.community, everybody.visibility[0])
        for each in sorted(path for path in folder.iterdir() if path.is_dir()):
            visibility, _, community = each.name.partition("~")
            self._shard(unquote(community), visibility)

    def _shard(self, community: str, visibility: str) -> Any:
        """The shard of one community and visibility, made when it is not there."""
        key = community, visibility
        if key not in self._shards:
            folder, mark = self._folder / shard_name(key), self._mark(key)
            if not folder.exists():
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
            self._shards[key] = edge_shard(folder, self._dimension)
            self._placeless |= {key} if mark.exists() else set()
        return self._shards[key]

    def _mark(self, key: tuple[str, str]) -> Path:
        """The file that says of a shard that it holds no passages; an index of before has none."""
        return self._folder / f"{shard_name(key)}.placeless"

    def upsert(self, vectors: Sequence[Vector]) -> None:
        import qdrant_edge as edge

        points: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
        for each in vectors:
            sparse = edge.SparseVector(list(each.sparse.indices), list(each.sparse.values))
            point = edge.Point(each.id, both(each.dense, sparse), each.payload)
            points[each.community, each.visibility].append(point)
        placed = {(each.community, each.visibility) for each in vectors if each.section}
        for key, added in points.items():
            shard = self._shard(*key)
            if key in placed & self._placeless:
                self._mark(key).unlink()
                self._placeless.remove(key)
            shard.update(edge.UpdateOperation.upsert_points(added))
            self._changed.add(key)
            # What was seen by others before may not be found by them any more.
            self._delete([point.id for point in added], self._shards.keys() - {key})

    def delete(self, ids: Sequence[str]) -> None:
        self._delete(ids, self._shards.keys())

    def _delete(self, ids: Sequence[Any], among: Iterable[tuple[str, str]]) -> None:
        import qdrant_edge as edge

        for key in among:
            if held := self._shards[key].retrieve(list(ids), with_payload=False, with_vector=False):
                self._shards[key].update(edge.UpdateOperation.delete_points([each.id for each in held]))
                self._changed.add(key)

    def dense(self, vector: np.ndarray, scope: Scope, limit: int) -> list[Hit]:
        return self._search(vector.tolist(), "dense", scope, limit)

    def sparse(self, query: Sparse, scope: Scope, limit: int) -> list[Hit]:
        import qdrant_edge as edge

        if not query.indices:
            return []
        return self._search(edge.SparseVector(list(query.indices), list(query.values)), "sparse", scope, limit)

    def _search(self, vector: Any, using: str, scope: Scope, limit: int) -> list[Hit]:
        import qdrant_edge as edge

        weighed_again = edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        found: list[Hit] = []
        seen = [key for each in scope.visibility if (key := (scope.community, each)) in self._shards]
        for key in seen:
            request = edge.SearchRequest(
                edge.Query.Nearest(vector, using=using),
                limit,
                params=edge.SearchParams(quantization=weighed_again),
                with_payload=False if key in self._placeless else list(PLACE),
            )
            found += [hit(each.id, each.score, each.payload) for each in self._shards[key].search(request)]
        return found if len(seen) == 1 else sorted(found, key=lambda each: -each.score)[:limit]

    def fused(self, vector: np.ndarray, query: Sparse, scope: Scope, *, depth: int, limit: int) -> list[str]:
        """What the engine itself makes of both searches, by reciprocal ranks: what recall is measured beside."""
        import qdrant_edge as edge

        words = edge.SparseVector(list(query.indices), list(query.values))
        legs = [
            edge.Prefetch(depth, query=edge.Query.Nearest(asked, using=using))
            for asked, using in ((vector.tolist(), "dense"), (words, "sparse"))
            if using == "dense" or query.indices
        ]
        fusion: Any = edge.Fusion.Rrf(k=RRF_K)  # a kind of Fusion, says the engine, though not its stubs
        shard = self._shard(scope.community, scope.visibility[0])
        found = shard.query(edge.QueryRequest(limit, query=fusion, prefetches=legs))
        return [str(each.id) for each in found]

    def known(self, ids: Sequence[str]) -> set[str]:
        found = [shard.retrieve(list(ids), with_payload=False, with_vector=False) for shard in self._shards.values()]
        return {str(each.id) for records in found for each in records}

    def count(self) -> int:
        import qdrant_edge as edge

        return sum(int(shard.count(edge.CountRequest(exact=True))) for shard in self._shards.values())

    def settle(self) -> None:
        for shard in self._shards.values():
            shard.optimize()

    def flush(self) -> None:
        for key in self._changed:
            self._shards[key].flush()
        self._changed.clear()

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()


def shard_name(key: tuple[str, str]) -> str:
    """The folder of the shard of a community and visibility."""
    community, visibility = key
    return f"{visibility}~{quote(community, safe='')}"


def both(dense: np.ndarray | None, sparse: Any) -> dict[str, Any]:
    """The vectors of a point by their names, as both engines take them."""
    return {"sparse": sparse} if dense is None else {"dense": dense.tolist(), "sparse": sparse}


def edge_shard(folder: Path, dimension: int) -> Any:
    """A shard that is searched whole: its vectors in four bits, what those find weighed again in full."""
    import qdrant_edge as edge

    dense = edge.EdgeVectorParams(
        dimension,
        edge.Distance.Cosine,
        hnsw_config=edge.HnswIndexConfig(0, 16, 10**9),
        quantization_config=edge.TurboQuantQuantizationConfig(always_ram=True, bits=edge.TurboQuantBitSize.Bits4),
    )
    config = edge.EdgeConfig(
        vectors={"dense": dense},
        sparse_vectors={"sparse": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        max_search_threads=1,
        wal_enabled=True,
    )
    exists = folder.is_dir() and any(folder.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return edge.EdgeShard.load(str(folder)) if exists else edge.EdgeShard.create(str(folder), config)
    except Exception as error:  # the engine raises nothing narrower, whatever is wrong
        raise ServiceTrouble(
            f"Could not open the index in {str(folder)!r}: {error}. Is another Understudy running on this folder?"
        ) from error


class Asked:
    """A client of a server whose failures are ServiceTrouble: no server, no answer in time, or one that is none."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        from qdrant_client.http.exceptions import ApiException

        method = getattr(self._client, name)

        def ask(*arguments: Any, **named: Any) -> Any:
            try:
                return method(*arguments, **named)
            except (ApiException, ValueError) as error:  # an answer that is no JSON, or not of its shape
                said = str(error).strip().split("\n", 1)[0]
                raise ServiceTrouble(f"The Qdrant server does not answer as one: {said}.") from error

        return ask


class ServerStore:
    """Collections of a Qdrant server, through one client; `:memory:` is the client's own engine, for tests.

    What it makes has so many `shards`, each on so many nodes (`replicas`); a write is acknowledged by most of those.
    """

    def __init__(self, url: str, *, api_key: str | None = None, shards: int = 1, replicas: int = 1) -> None:
        from qdrant_client import QdrantClient

        here = url == ":memory:"
        client = QdrantClient(":memory:") if here else QdrantClient(url=url, api_key=api_key, timeout=ANSWER_S)
        self._client, self._spread = Asked(client), {"shard_number": shards, "replication_factor": replicas}

    def current(self) -> Current | None:
        aliases = self._client.get_aliases().aliases
        name = next((each.collection_name for each in aliases if each.alias_name == ALIAS), None)
        if name is None:
            return None
        return Current(name, (self._client.get_collection(name).config.metadata or {}).get(EMBEDDER, ""))

    def open(self, name: str, dimension: int) -> "ServerCollection":
        """The collection, made when it is not there. Raises ServiceTrouble when the server does not answer."""
        return ServerCollection(self._client, name, dimension=dimension, spread=self._spread)

    def switch(self, name: str, embedder: str) -> None:
        """Let `name`, which `embedder` has filled, answer from now on, in one step of the server."""
        from qdrant_client import models

        old = self.current()
        self._client.update_collection(name, metadata={EMBEDDER: embedder})
        created = models.CreateAlias(collection_name=name, alias_name=ALIAS)
        steps: list[Any] = [models.CreateAliasOperation(create_alias=created)]
        if old:
            steps.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ALIAS)))
        self._client.update_collection_aliases(change_aliases_operations=steps)

    def sweep(self, *kept: str) -> None:
        """Remove all of our collections but those that are kept."""
        for each in self._client.get_collections().collections:
            if each.name.startswith(f"{ALIAS}_") and each.name not in kept:
                self._client.delete_collection(each.name)


class ServerCollection:
    """One collection of a Qdrant server."""

    def __init__(self, client: Any, name: str, *, dimension: int, spread: Mapping[str, int]) -> None:
        from qdrant_client import models

        self._client, self._name, self._models = client, name, models
        if not client.collection_exists(name):
            self._create(dimension, spread)

    def _create(self, dimension: int, spread: Mapping[str, int]) -> None:
        """Make it as Qdrant advises for many tenants: a graph of neighbours for each community, and none over all.

        https://qdrant.tech/documentation/guides/multitenancy/
        """
        models = self._models
        self._client.create_collection(
            self._name,
            vectors_config={"dense": models.VectorParams(size=dimension, distance=models.Distance.COSINE)},
            sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
            hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
            write_consistency_factor=spread["replication_factor"] // 2 + 1,
            **spread,
        )
        for field in FILTERS:
            kept = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=field == TENANT)
            self._client.create_payload_index(self._name, field, kept)

    def upsert(self, vectors: Sequence[Vector]) -> None:
        models = self._models
        points = [
            models.PointStruct(
                id=each.id,
                vector=both(
                    each.dense,
                    models.SparseVector(indices=list(each.sparse.indices), values=list(each.sparse.values)),
                ),
                payload=each.payload,
            )
            for each in vectors
        ]
        self._client.upsert(self._name, points, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        if not ids:
            return  # a server refuses an empty list
        self._client.delete(self._name, self._models.PointIdsList(points=list(ids)), wait=True)

    def dense(self, vector: np.ndarray, scope: Scope, limit: int) -> list[Hit]:
        return self._search(vector.tolist(), "dense", scope, limit)

    def sparse(self, query: Sparse, scope: Scope, limit: int) -> list[Hit]:
        if not query.indices:
            return []
        vector = self._models.SparseVector(indices=list(query.indices), values=list(query.values))
        return self._search(vector, "sparse", scope, limit)

    def _search(self, vector: Any, using: str, scope: Scope, limit: int) -> list[Hit]:
        models = self._models
        seen = models.Filter(
            must=[
                models.FieldCondition(key="community", match=models.MatchValue(value=scope.community)),
                models.FieldCondition(key="visibility", match=models.MatchAny(any=list(scope.visibility))),
            ]
        )
        found = self._client.query_points(
            self._name, query=vector, using=using, query_filter=seen, limit=limit, with_payload=list(PLACE)
        )
        return [hit(point.id, point.score, point.payload) for point in found.points]

    def known(self, ids: Sequence[str]) -> set[str]:
        found = self._client.retrieve(self._name, list(ids), with_payload=False, with_vectors=False)
        return {str(each.id) for each in found}

    def count(self) -> int:
        return int(self._client.count(self._name, exact=True).count)

    def settle(self) -> None:
        """A server does so by itself."""

    def flush(self) -> None:
        """A server acknowledges what it has made durable: nothing waits here."""

    def close(self) -> None:
        """The client is the store's."""
