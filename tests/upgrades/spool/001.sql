CREATE TABLE meanings (
    platform TEXT NOT NULL, place TEXT NOT NULL, message_id TEXT NOT NULL, payload TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (platform, place, message_id)
);
INSERT INTO "meanings" VALUES('telegram','100','5','{"form": "edit"}','2026-03-01T12:00:00.000000Z');
CREATE TABLE spool (
    platform TEXT NOT NULL, id TEXT NOT NULL, payload TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (platform, id)
);
INSERT INTO "spool" VALUES('telegram','77','{"update_id": 77}','2026-03-01T12:00:00.000000Z');
