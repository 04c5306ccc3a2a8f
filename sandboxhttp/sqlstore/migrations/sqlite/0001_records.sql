-- Statements are separated by an empty line. Accounts and ids are bytes, so that
-- they compare byte by byte; times are nanoseconds since 1970; a record is JSON.
CREATE TABLE vivarium_sandboxes (
	account    BLOB    NOT NULL,
	id         BLOB    NOT NULL,
	state      TEXT    NOT NULL,
	created_at INTEGER NOT NULL,
	record     BLOB    NOT NULL,
	PRIMARY KEY (account, id)
);

CREATE INDEX vivarium_sandboxes_newest ON vivarium_sandboxes (account, created_at DESC, id DESC);

CREATE INDEX vivarium_sandboxes_newest_of_state ON vivarium_sandboxes (account, state, created_at DESC, id DESC);

CREATE TABLE vivarium_runs (
	account    BLOB    NOT NULL,
	sandbox_id BLOB    NOT NULL,
	id         BLOB    NOT NULL,
	started_at INTEGER NOT NULL,
	record     BLOB    NOT NULL,
	PRIMARY KEY (account, sandbox_id, id)
);

CREATE INDEX vivarium_runs_oldest ON vivarium_runs (account, sandbox_id, started_at, id);

-- A foreign key would hold only on connections that have PRAGMA foreign_keys.
CREATE TRIGGER vivarium_sandboxes_deleted AFTER DELETE ON vivarium_sandboxes BEGIN
	DELETE FROM vivarium_runs WHERE account = OLD.account AND sandbox_id = OLD.id;
END;
