CREATE TABLE runs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL UNIQUE, state TEXT NOT NULL, stage TEXT NOT NULL,
    progress TEXT NOT NULL, options TEXT NOT NULL, attempt INTEGER NOT NULL, token INTEGER NOT NULL,
    owner TEXT NOT NULL, lease_until TEXT NOT NULL, cancel_requested INTEGER NOT NULL, error TEXT NOT NULL,
    result TEXT NOT NULL, created TEXT NOT NULL, started TEXT NOT NULL, ended TEXT NOT NULL
, queue TEXT NOT NULL DEFAULT 'gpu', artifact TEXT NOT NULL DEFAULT '', stages TEXT NOT NULL DEFAULT '{}');
INSERT INTO "runs" VALUES('c0e4ffbaa21c','retrain','manual:1','succeeded','','{}','{"stage": "sft"}',1,1,'worker','2026-03-01T12:00:30.000000Z',0,'','{"version": "v1"}','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','2026-03-01T12:00:00.000000Z','gpu','','{}');
INSERT INTO "runs" VALUES('f959035572fb','retrain','manual:2','queued','','{}','{}',0,0,'','2026-03-01T13:00:00.000000Z',0,'','{}','2026-03-01T13:00:00.000000Z','','','gpu','','{}');
CREATE UNIQUE INDEX one_active ON runs (kind) WHERE state IN ('queued', 'running');
