CREATE TABLE published_keys (id TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, name TEXT NOT NULL, requests INTEGER NOT NULL, tokens INTEGER NOT NULL, voice TEXT NOT NULL, created TEXT NOT NULL, expires TEXT NOT NULL, revoked TEXT NOT NULL);
INSERT INTO "published_keys" VALUES('7160fe36e18b','1c708d8502e4a5db308d84d63926217d619be9184b2be011d931ef75a88e832a','bakery',10,1000,'','2026-03-01T12:00:00+00:00','','');
CREATE TABLE published_use (key TEXT NOT NULL, day TEXT NOT NULL, requests BIGINT NOT NULL, tokens BIGINT NOT NULL, PRIMARY KEY (key, day));
INSERT INTO "published_use" VALUES('7160fe36e18b','2026-03-01',1,60);
CREATE UNIQUE INDEX one_open_key ON published_keys (name) WHERE revoked = '';
