"""Coverage: what the rows are about, and that no topic and no thread is most of them. Pure.

A row's topic is the one of memory's graph whose names it mentions most; what the graph places nowhere is clustered by
its words. What the creator chose to teach without being asked is never capped: a loud thread is not theirs.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from memory.graph import Graph
from memory.messages import Exchange
from memory.terms import content_terms
from memory.topics import Topic

# What one topic and one thread may be of the rows, and how many each may always be.
TOPIC_SHARE, TOPIC_ROWS = 0.25, 24
THREAD_SHARE, THREAD_ROWS = 0.05, 8
# Fewer than this are not clustered, and a topic has about so many rows.
LEAST_CLUSTERED, CLUSTER = 40, 60
MOST_CLUSTERS = 24
LABEL = 3
ELSEWHERE = "no topic"


def topics_of(exchanges: Sequence[Exchange], graph: Graph | None, topics: Sequence[Topic]) -> dict[str, str]:
    """The label of each exchange's topic, by its id."""
    found = from_graph(exchanges, graph, topics) if graph is not None else {}
    rest = [each for each in exchanges if each.id not in found]
    return found | clustered(rest)


def from_graph(exchanges: Iterable[Exchange], graph: Graph, topics: Sequence[Topic]) -> dict[str, str]:
    """Those of which the graph knows the topic."""
    place = {member: number for number, topic in reversed([*enumerate(topics)]) for member in topic.members}
    found = {}
    for exchange in exchanges:
        if exchange.id not in graph.readings:
            continue
        counts = Counter(place[each] for each in graph.mentioned(exchange.id) if each in place)
        if counts:
            best = min(counts, key=lambda number: (-counts[number], number))
            found[exchange.id] = topics[best].label
    return found


def clustered(exchanges: Sequence[Exchange]) -> dict[str, str]:
    """Exchanges grouped by their words (k-means over TF-IDF), each group named by its most telling ones."""
    if len(exchanges) < LEAST_CLUSTERED:
        return dict.fromkeys((each.id for each in exchanges), ELSEWHERE)
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [f"{each.question}\n{each.answer}" for each in exchanges]
    vectorizer = TfidfVectorizer(analyzer=ordered_terms, min_df=2, max_df=0.5, sublinear_tf=True, max_features=4000)
    try:
        weights = vectorizer.fit_transform(texts)
    except ValueError:  # no word comes twice
        return dict.fromkeys((each.id for each in exchanges), ELSEWHERE)
    count = max(2, min(MOST_CLUSTERS, round(len(exchanges) / CLUSTER)))
    groups = KMeans(count, n_init=1, random_state=0, max_iter=50).fit(weights)
    labels = label_each(groups.cluster_centers_, vectorizer.get_feature_names_out())
    return {each.id: labels[int(group)] for each, group in zip(exchanges, groups.labels_, strict=True)}


def ordered_terms(text: str) -> list[str]:
    """A set has another order in every process, and sums of floats depend on it."""
    return sorted(content_terms(text))


def label_each(centres: Any, names: Any) -> list[str]:
    """The heaviest words of each group."""
    return [", ".join(str(names[at]) for at in (-centre).argsort(kind="stable")[:LABEL]) for centre in centres]


def thread_of(exchange: Exchange) -> str:
    """The thread that an exchange stands in; empty for what has none."""
    return exchange.place.key if exchange.place.thread else ""


def capped(
    exchanges: Sequence[Exchange],
    group: Callable[[Exchange], str],
    *,
    share: float,
    least: int,
    score: Mapping[str, float],
) -> list[Exchange]:
    """`exchanges`, in order, with at most `share` of them of one group: those worth most, of equals the newest.

    What is in no group, was not asked by a member, or is the only group there is, has no cap.
    """
    most = max(least, math.floor(len(exchanges) * share))
    groups: defaultdict[str, list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        if group(exchange) and asked_by_member(exchange):
            groups[group(exchange)].append(exchange)
    dropped: set[str] = set()
    for members in groups.values() if len(groups) > 1 else ():
        ranked = sorted(members, key=lambda each: (score.get(each.id, 0.0), each.at, each.id), reverse=True)
        dropped |= {each.id for each in ranked[most:]}
    return [each for each in exchanges if each.id not in dropped]


def asked_by_member(exchange: Exchange) -> bool:
    """Whether somebody else wrote the question."""
    asker = exchange.asker
    return asker is not None and asker.role != "creator" and asker.key != exchange.author.key


def counts(topics: Mapping[str, str], exchanges: Iterable[Exchange], *, most: int = 12) -> dict[str, int]:
    """How many rows there are of each topic, the largest first, the small ones together."""
    found = Counter(topics.get(each.id, ELSEWHERE) for each in exchanges).most_common()
    shown, rest = found[:most], sum(count for _, count in found[most:])
    return dict(shown) | ({"other topics": rest} if rest else {})
