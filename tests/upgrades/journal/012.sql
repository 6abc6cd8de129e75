CREATE TABLE cards (
    platform TEXT NOT NULL, number INTEGER NOT NULL, place TEXT NOT NULL, message_id TEXT NOT NULL,
    shown TEXT NOT NULL, PRIMARY KEY (platform, number)
);
INSERT INTO "cards" VALUES('telegram',1,'telegram:1','8','open:1');
CREATE TABLE choices (
    person TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL, at TEXT NOT NULL, PRIMARY KEY (person, name)
);
INSERT INTO "choices" VALUES('telegram:2','met',1,'2026-03-01T12:00:00.000000Z');
INSERT INTO "choices" VALUES('telegram:3','remember',0,'2026-03-01T12:00:00.000000Z');
CREATE TABLE consents (
    person TEXT NOT NULL, place TEXT NOT NULL, granted INTEGER NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (person, place)
);
INSERT INTO "consents" VALUES('telegram:2','telegram:100',1,'2026-03-01T12:00:00.000000Z');
CREATE TABLE document_exchanges (document TEXT NOT NULL, exchange_id TEXT NOT NULL, PRIMARY KEY (document, exchange_id));
INSERT INTO "document_exchanges" VALUES('qa.csv','c0e7cf9e-a03c-53b0-9b67-3a16d1afced7');
CREATE TABLE documents (document TEXT PRIMARY KEY, revision INTEGER NOT NULL, sha256 TEXT NOT NULL);
INSERT INTO "documents" VALUES('qa.csv',0,'1f5e');
INSERT INTO "documents" VALUES('bread.md',0,'5e1f');
CREATE TABLE events (
    seq {serial},
    platform TEXT NOT NULL, place TEXT NOT NULL, message_id TEXT NOT NULL, kind TEXT NOT NULL,
    revision INTEGER NOT NULL, author TEXT NOT NULL, source TEXT NOT NULL, at TEXT NOT NULL, payload TEXT NOT NULL, written TEXT NOT NULL DEFAULT '',
    UNIQUE (platform, place, message_id, kind, revision)
);
INSERT INTO "events" VALUES(1,'own','creator','dccf045e-ab72-589a-a032-5f1b3fc57bdb','exchange',0,'{"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}','creator-surface','2026-03-01T12:00:00.000000Z','{"answers": "", "exchange": {"answer": "Strong white, friend; it''s never sifted.", "answer_ids": [], "asker": null, "at": "2026-03-01T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "id": "dccf045e-ab72-589a-a032-5f1b3fc57bdb", "pairing": "given", "place": {"community": "main", "id": "creator", "name": "bakery", "platform": "own", "thread": "", "visibility": "public"}, "question": "Which flour makes the crust so thin?", "question_ids": [], "question_place": "", "question_source": "creator-surface", "source": "creator-surface", "title": "", "url": ""}}','2026-03-01T12:00:00.000000Z');
INSERT INTO "events" VALUES(2,'import','qa.csv','c0e7cf9e-a03c-53b0-9b67-3a16d1afced7','exchange',0,'{"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}','creator-surface','2026-03-01T12:00:00.000000Z','{"answers": "", "exchange": {"answer": "From six.", "answer_ids": [], "asker": null, "at": "2026-03-01T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "id": "c0e7cf9e-a03c-53b0-9b67-3a16d1afced7", "pairing": "given", "place": {"community": "main", "id": "qa.csv", "name": "bakery", "platform": "import", "thread": "", "visibility": "public"}, "question": "When is it open?", "question_ids": [], "question_place": "", "question_source": "creator-surface", "source": "creator-surface", "title": "", "url": ""}}','2026-03-01T12:00:00.000000Z');
INSERT INTO "events" VALUES(3,'import','qa.csv','qa.csv','import',0,'{"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}','creator-document','2026-03-01T12:00:00.000000Z','{"document": "qa.csv", "exchanges": ["c0e7cf9e-a03c-53b0-9b67-3a16d1afced7"], "passages": [], "revision": 0, "sha256": "1f5e"}','2026-03-01T12:00:00.000000Z');
INSERT INTO "events" VALUES(4,'own','creator','8342c80a-b2ac-586a-86e5-a5497abeb437','exchange',0,'{"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}','creator-surface','2026-03-02T12:00:00.000000Z','{"answers": "telegram:100:99", "exchange": {"answer": "On Fridays.", "answer_ids": [], "asker": null, "at": "2026-03-02T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "id": "8342c80a-b2ac-586a-86e5-a5497abeb437", "pairing": "given", "place": {"community": "main", "id": "creator", "name": "bakery", "platform": "own", "thread": "", "visibility": "public"}, "question": "Is there cake?", "question_ids": [], "question_place": "", "question_source": "creator-surface", "source": "creator-surface", "title": "", "url": ""}}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(6,'telegram','100','dff8e1df-4e47-5e3f-90d4-e97c82acea72','passage',0,'{"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}','creator-document','2026-03-01T12:00:00.000000Z','{"at": "2026-03-01T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "document": "bread.md", "heading": "", "id": "dff8e1df-4e47-5e3f-90d4-e97c82acea72", "mark": "", "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "position": 0, "source": "creator-document", "text": "面包: the starter is fed with rye at noon.", "title": "", "url": ""}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(7,'telegram','100','f80a1c6c-c261-523a-a507-d6cee4f503ae','passage',0,'{"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}','creator-document','2026-03-01T12:00:00.000000Z','{"at": "2026-03-01T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "document": "bread.md", "heading": "", "id": "f80a1c6c-c261-523a-a507-d6cee4f503ae", "mark": "", "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "position": 1, "source": "creator-document", "text": "Steam: ten minutes.", "title": "", "url": ""}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(8,'telegram','100','bread.md','import',0,'{"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}','creator-document','2026-03-01T12:00:00.000000Z','{"document": "bread.md", "exchanges": [], "passages": ["dff8e1df-4e47-5e3f-90d4-e97c82acea72", "f80a1c6c-c261-523a-a507-d6cee4f503ae"], "revision": 0, "sha256": "5e1f"}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(9,'telegram','100','1','message',0,'{"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}','telegram-direct','2026-03-01T12:00:00.000000Z','{"at": "2026-03-01T12:00:00.000000Z", "id": "1", "mentions": [], "person": {"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "reply_to": null, "revision": 0, "text": "How warm should the dough be?", "url": ""}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(10,'telegram','100','2','message',0,'{"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}','telegram-direct','2026-03-01T12:01:00.000000Z','{"at": "2026-03-01T12:01:00.000000Z", "id": "2", "mentions": [], "person": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "reply_to": "1", "revision": 0, "text": "24 °C, friend. Trust the dough.", "url": ""}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(11,'telegram','100','3','message',0,'{"id": "3", "name": "Charlie", "platform": "telegram", "role": "member"}','telegram-direct','2026-03-01T12:02:00.000000Z','{"at": "2026-03-01T12:02:00.000000Z", "id": "3", "mentions": [], "person": {"id": "3", "name": "Charlie", "platform": "telegram", "role": "member"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "reply_to": null, "revision": 0, "text": "Is this on?", "url": ""}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(12,'telegram','100','1','edit',7,'{"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}','telegram-direct','2026-03-01T12:00:00.000000Z','{"at": "2026-03-01T12:00:00.000000Z", "id": "1", "mentions": [], "person": {"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "reply_to": null, "revision": 7, "text": "How warm should the dough be, Ada?", "url": ""}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(13,'telegram','100','3','deletion',0,'{"id": "3", "name": "Charlie", "platform": "telegram", "role": "member"}','telegram-direct','2026-03-01T12:04:00.000000Z','{}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(14,'telegram','100','telegram:100:4','question',0,'{"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}','telegram-direct','2026-03-01T12:03:00.000000Z','{"asker": {"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "question": "What about spelt?", "source": "telegram-direct"}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(15,'telegram','telegram:100','a1','answer',0,'{"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}','twin','2026-03-01T12:00:00.000000Z','{"answer": {"id": "a1", "notes": [{"at": "2026-03-01T12:00:00.000000Z", "id": "n", "kind": "exchange", "question": "", "score": 0.9, "source": "Ada", "text": "24 °C", "url": "", "why": {"answers": 1, "askers": 0, "authority": "creator", "cosine": 0.0, "coverage": 0.0, "linked": false, "names": "", "replaced": null, "words": []}}], "outcome": "answered", "prompt_sha256": "0", "question_id": "1", "reason": "", "text": "24 °C [1].", "timings_ms": {"first_token": 12.5, "total": 80.0}, "voice": "base"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "question": "How warm should the dough be?"}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(16,'telegram','a1','telegram:2:2026-03-01T12:00:00.000000Z','vote',0,'{"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}','own-direct','2026-03-01T12:00:00.000000Z','{"person": {"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}, "value": "good"}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(17,'telegram','100','telegram:2:2026-03-01T12:00:00.000000Z','consent',0,'{"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}','own-direct','2026-03-01T12:00:00.000000Z','{"granted": true, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(18,'telegram','choices','telegram:3:remember:2026-03-01T12:00:00.000000Z','choice',0,'{"id": "3", "name": "Charlie", "platform": "telegram", "role": "member"}','own-direct','2026-03-01T12:00:00.000000Z','{"name": "remember", "value": false}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(19,'telegram','100','listen:2026-03-01T12:00:00.000000Z','listening',0,'{"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}','own-direct','2026-03-01T12:00:00.000000Z','{"on": true, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "space": "g"}','2026-03-02T12:00:00.000000Z');
INSERT INTO "events" VALUES(20,'telegram','1','card:1','card',0,'{"id": "twin", "name": "", "platform": "telegram", "role": "twin"}','twin','2026-03-01T12:00:00.000000Z','{"message_id": "8", "number": 1, "place": "telegram:1", "shown": "open:1"}','2026-03-02T12:00:00.000000Z');
CREATE TABLE exchanges (
    id TEXT PRIMARY KEY, place_key TEXT NOT NULL, at TEXT NOT NULL, pairing TEXT NOT NULL,
    community TEXT NOT NULL, payload TEXT NOT NULL
, form TEXT NOT NULL DEFAULT '');
INSERT INTO "exchanges" VALUES('dccf045e-ab72-589a-a032-5f1b3fc57bdb','own:creator','2026-03-01T12:00:00.000000Z','given','main','{"answer": "Strong white, friend; it''s never sifted.", "answer_ids": [], "asker": null, "at": "2026-03-01T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "id": "dccf045e-ab72-589a-a032-5f1b3fc57bdb", "pairing": "given", "place": {"community": "main", "id": "creator", "name": "bakery", "platform": "own", "thread": "", "visibility": "public"}, "question": "Which flour makes the crust so thin?", "question_ids": [], "question_place": "", "question_source": "creator-surface", "source": "creator-surface", "title": "", "url": ""}','e219fcb4af2c2eb183676121d2f88d281a8589b17adc2e656b50b22673a4cef3');
INSERT INTO "exchanges" VALUES('c0e7cf9e-a03c-53b0-9b67-3a16d1afced7','import:qa.csv','2026-03-01T12:00:00.000000Z','given','main','{"answer": "From six.", "answer_ids": [], "asker": null, "at": "2026-03-01T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "id": "c0e7cf9e-a03c-53b0-9b67-3a16d1afced7", "pairing": "given", "place": {"community": "main", "id": "qa.csv", "name": "bakery", "platform": "import", "thread": "", "visibility": "public"}, "question": "When is it open?", "question_ids": [], "question_place": "", "question_source": "creator-surface", "source": "creator-surface", "title": "", "url": ""}','0f6f358b9b897e9b5918818e87d2e322f2779ee48cb046c2d78fa8c16b57a9fc');
INSERT INTO "exchanges" VALUES('8342c80a-b2ac-586a-86e5-a5497abeb437','own:creator','2026-03-02T12:00:00.000000Z','given','main','{"answer": "On Fridays.", "answer_ids": [], "asker": null, "at": "2026-03-02T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "id": "8342c80a-b2ac-586a-86e5-a5497abeb437", "pairing": "given", "place": {"community": "main", "id": "creator", "name": "bakery", "platform": "own", "thread": "", "visibility": "public"}, "question": "Is there cake?", "question_ids": [], "question_place": "", "question_source": "creator-surface", "source": "creator-surface", "title": "", "url": ""}','009cf739ef1777b6f70d37835a08b3df590a02b35430bc827c675ea3c4f1a8a6');
INSERT INTO "exchanges" VALUES('020f4ba7-7692-5f42-b5f8-6565008b27d5','telegram:100','2026-03-01T12:01:00.000000Z','reply','main','{"answer": "24 °C, friend. Trust the dough.", "answer_ids": ["2"], "asker": {"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}, "at": "2026-03-01T12:01:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "id": "020f4ba7-7692-5f42-b5f8-6565008b27d5", "pairing": "reply", "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "question": "How warm should the dough be, Ada?", "question_ids": ["1"], "question_place": "", "question_source": "telegram-direct", "source": "telegram-direct", "title": "", "url": ""}','d2cdd82a55d2e398ee3857b419763974105f571138445f417a6eeb9ce57e88f5');
CREATE TABLE forgotten (seq {serial}, exchange_id TEXT NOT NULL);
CREATE TABLE graph_found (source TEXT PRIMARY KEY, seq BIGINT NOT NULL, model TEXT NOT NULL, digest TEXT NOT NULL, payload TEXT NOT NULL);
CREATE TABLE graph_outbox (seq {serial}, id TEXT NOT NULL);
INSERT INTO "graph_outbox" VALUES(1,'020f4ba7-7692-5f42-b5f8-6565008b27d5');
INSERT INTO "graph_outbox" VALUES(2,'8342c80a-b2ac-586a-86e5-a5497abeb437');
INSERT INTO "graph_outbox" VALUES(3,'c0e7cf9e-a03c-53b0-9b67-3a16d1afced7');
INSERT INTO "graph_outbox" VALUES(4,'dccf045e-ab72-589a-a032-5f1b3fc57bdb');
INSERT INTO "graph_outbox" VALUES(5,'dff8e1df-4e47-5e3f-90d4-e97c82acea72');
INSERT INTO "graph_outbox" VALUES(6,'f80a1c6c-c261-523a-a507-d6cee4f503ae');
CREATE TABLE graph_readings (source TEXT PRIMARY KEY, seq BIGINT NOT NULL, payload TEXT NOT NULL);
INSERT INTO "graph_readings" VALUES('dccf045e-ab72-589a-a032-5f1b3fc57bdb',11,'{"aliases": [], "asks": "e219fcb4af2c2eb183676121d2f88d281a8589b17adc2e656b50b22673a4cef3", "at": "2026-03-01T12:00:00.000000Z", "mentions": [], "source": "dccf045e-ab72-589a-a032-5f1b3fc57bdb", "statements": []}');
INSERT INTO "graph_readings" VALUES('c0e7cf9e-a03c-53b0-9b67-3a16d1afced7',10,'{"aliases": [], "asks": "0f6f358b9b897e9b5918818e87d2e322f2779ee48cb046c2d78fa8c16b57a9fc", "at": "2026-03-01T12:00:00.000000Z", "mentions": [], "source": "c0e7cf9e-a03c-53b0-9b67-3a16d1afced7", "statements": []}');
INSERT INTO "graph_readings" VALUES('8342c80a-b2ac-586a-86e5-a5497abeb437',9,'{"aliases": [], "asks": "009cf739ef1777b6f70d37835a08b3df590a02b35430bc827c675ea3c4f1a8a6", "at": "2026-03-02T12:00:00.000000Z", "mentions": [], "source": "8342c80a-b2ac-586a-86e5-a5497abeb437", "statements": []}');
INSERT INTO "graph_readings" VALUES('dff8e1df-4e47-5e3f-90d4-e97c82acea72',12,'{"aliases": [], "asks": "", "at": "2026-03-01T12:00:00.000000Z", "mentions": [], "source": "dff8e1df-4e47-5e3f-90d4-e97c82acea72", "statements": []}');
INSERT INTO "graph_readings" VALUES('f80a1c6c-c261-523a-a507-d6cee4f503ae',13,'{"aliases": [], "asks": "", "at": "2026-03-01T12:00:00.000000Z", "mentions": [], "source": "f80a1c6c-c261-523a-a507-d6cee4f503ae", "statements": []}');
INSERT INTO "graph_readings" VALUES('020f4ba7-7692-5f42-b5f8-6565008b27d5',8,'{"aliases": [], "asks": "d2cdd82a55d2e398ee3857b419763974105f571138445f417a6eeb9ce57e88f5", "at": "2026-03-01T12:01:00.000000Z", "mentions": [{"kind": "concept", "name": "Ada"}], "source": "020f4ba7-7692-5f42-b5f8-6565008b27d5", "statements": []}');
CREATE TABLE graph_state (name TEXT PRIMARY KEY, payload TEXT NOT NULL);
INSERT INTO "graph_state" VALUES('lexicon','{"terms": {}, "refrains": [], "learned_from": 6, "extractor": "rules-2"}');
CREATE TABLE inbox (
    number {serial},
    normalised TEXT NOT NULL, question TEXT NOT NULL, at TEXT NOT NULL, count INTEGER NOT NULL,
    state TEXT NOT NULL, exchange_id TEXT, payload TEXT NOT NULL
);
INSERT INTO "inbox" VALUES(1,'97c9914cd89ae31d67a7ef7e4dbd88bda2620e364d52a2c1ac927590fd45c624','What about spelt?','2026-03-01T12:03:00.000000Z',1,'open',NULL,'{"asker": {"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "question": "What about spelt?", "question_id": "telegram:100:4", "source": "telegram-direct"}');
CREATE TABLE inbox_askers (question_id TEXT PRIMARY KEY, number INTEGER NOT NULL, payload TEXT NOT NULL);
INSERT INTO "inbox_askers" VALUES('telegram:100:4',1,'{"asker": {"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "question": "What about spelt?", "source": "telegram-direct"}');
CREATE TABLE inbox_closings (question_id TEXT PRIMARY KEY, state TEXT NOT NULL, exchange_id TEXT);
INSERT INTO "inbox_closings" VALUES('telegram:100:99','answered','8342c80a-b2ac-586a-86e5-a5497abeb437');
CREATE TABLE messages (
    platform TEXT NOT NULL, place TEXT NOT NULL, message_id TEXT NOT NULL,
    thread TEXT NOT NULL, at TEXT NOT NULL, reply_to TEXT, revision INTEGER NOT NULL, deleted INTEGER NOT NULL,
    source TEXT NOT NULL, payload TEXT NOT NULL,
    PRIMARY KEY (platform, place, message_id)
);
INSERT INTO "messages" VALUES('telegram','100','1','','2026-03-01T12:00:00.000000Z',NULL,7,0,'telegram-direct','{"at": "2026-03-01T12:00:00.000000Z", "id": "1", "mentions": [], "person": {"id": "2", "name": "Bob", "platform": "telegram", "role": "member"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "reply_to": null, "revision": 7, "text": "How warm should the dough be, Ada?", "url": ""}');
INSERT INTO "messages" VALUES('telegram','100','2','','2026-03-01T12:01:00.000000Z','1',0,0,'telegram-direct','{"at": "2026-03-01T12:01:00.000000Z", "id": "2", "mentions": [], "person": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "reply_to": "1", "revision": 0, "text": "24 °C, friend. Trust the dough.", "url": ""}');
INSERT INTO "messages" VALUES('telegram','100','3','','2026-03-01T12:02:00.000000Z',NULL,0,1,'telegram-direct','{"at": "2026-03-01T12:02:00.000000Z", "id": "3", "mentions": [], "person": {"id": "3", "name": "Charlie", "platform": "telegram", "role": "member"}, "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "reply_to": null, "revision": 0, "text": "Is this on?", "url": ""}');
CREATE TABLE notices (
    question_id TEXT PRIMARY KEY, platform TEXT NOT NULL, answer TEXT NOT NULL, at TEXT NOT NULL, told INTEGER NOT NULL
);
CREATE TABLE outbox (seq {serial}, op TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL);
INSERT INTO "outbox" VALUES(1,'upsert','exchange','dccf045e-ab72-589a-a032-5f1b3fc57bdb');
INSERT INTO "outbox" VALUES(2,'upsert','exchange','c0e7cf9e-a03c-53b0-9b67-3a16d1afced7');
INSERT INTO "outbox" VALUES(3,'upsert','exchange','8342c80a-b2ac-586a-86e5-a5497abeb437');
INSERT INTO "outbox" VALUES(4,'upsert','passage','dff8e1df-4e47-5e3f-90d4-e97c82acea72');
INSERT INTO "outbox" VALUES(5,'upsert','passage','f80a1c6c-c261-523a-a507-d6cee4f503ae');
INSERT INTO "outbox" VALUES(6,'upsert','exchange','020f4ba7-7692-5f42-b5f8-6565008b27d5');
INSERT INTO "outbox" VALUES(7,'upsert','exchange','020f4ba7-7692-5f42-b5f8-6565008b27d5');
CREATE TABLE passages (
    id TEXT PRIMARY KEY, document TEXT NOT NULL, position INTEGER NOT NULL,
    community TEXT NOT NULL, payload TEXT NOT NULL
, revision INTEGER NOT NULL DEFAULT 0);
INSERT INTO "passages" VALUES('dff8e1df-4e47-5e3f-90d4-e97c82acea72','bread.md',0,'main','{"at": "2026-03-01T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "document": "bread.md", "heading": "", "id": "dff8e1df-4e47-5e3f-90d4-e97c82acea72", "mark": "", "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "position": 0, "source": "creator-document", "text": "面包: the starter is fed with rye at noon.", "title": "", "url": ""}',0);
INSERT INTO "passages" VALUES('f80a1c6c-c261-523a-a507-d6cee4f503ae','bread.md',1,'main','{"at": "2026-03-01T12:00:00.000000Z", "author": {"id": "1", "name": "Ada", "platform": "telegram", "role": "creator"}, "document": "bread.md", "heading": "", "id": "f80a1c6c-c261-523a-a507-d6cee4f503ae", "mark": "", "place": {"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}, "position": 1, "source": "creator-document", "text": "Steam: ten minutes.", "title": "", "url": ""}',0);
CREATE TABLE places (
    place TEXT PRIMARY KEY, platform TEXT NOT NULL, space TEXT NOT NULL, listening INTEGER NOT NULL, at TEXT NOT NULL,
    payload TEXT NOT NULL
);
INSERT INTO "places" VALUES('telegram:100','telegram','g',1,'2026-03-01T12:00:00.000000Z','{"community": "main", "id": "100", "name": "bakery", "platform": "telegram", "thread": "", "visibility": "public"}');
CREATE TABLE tombstones (receipt TEXT PRIMARY KEY, at TEXT NOT NULL, selection TEXT NOT NULL, counts TEXT NOT NULL, lifted INTEGER NOT NULL);
INSERT INTO "tombstones" VALUES('753803a7-1a5e-5b38-85ba-dc5c6b55f707','2026-03-02T12:00:00.000000Z','{"person": "sealed$183c38233fb5dbd6$831bb1bd29998ad483db6979f90efbdff8710dffd005fbd263e0200b73eaf38f"}','{"events": 1, "exchanges": 0, "messages": 1}',0);
CREATE INDEX events_by_kind ON events (kind, place, seq);
CREATE INDEX messages_by_time ON messages (platform, place, thread, at);
CREATE INDEX messages_by_reply ON messages (platform, place, reply_to);
CREATE INDEX exchanges_by_time ON exchanges (place_key, at);
CREATE INDEX passages_by_document ON passages (document, position);
CREATE INDEX inbox_by_state ON inbox (state, number);
CREATE INDEX notices_by_platform ON notices (platform, told, at);
CREATE INDEX events_by_message ON events (kind, message_id)
;
CREATE INDEX inbox_by_form ON inbox (normalised, state);
CREATE INDEX documents_by_exchange ON document_exchanges (exchange_id);
CREATE INDEX graph_readings_by_seq ON graph_readings (seq);
CREATE INDEX exchanges_by_form ON exchanges (form);
CREATE INDEX inbox_askers_by_number ON inbox_askers (number);
