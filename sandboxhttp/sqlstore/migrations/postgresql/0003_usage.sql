-- Times are nanoseconds since 1970, days are days since then, claude_time is
-- nanoseconds and cost millionths of a dollar. Kinds are bytes, as accounts and ids
-- are, so that they sort byte by byte.
CREATE TABLE vivarium_usage_places (
	account            bytea  NOT NULL,
	kind               bytea  NOT NULL,
	id                 bytea  NOT NULL,
	sandbox_id         bytea  NOT NULL,
	taken_at           bigint NOT NULL,
	sandboxes          bigint NOT NULL,
	claude_time        bigint NOT NULL,
	cost               bigint NOT NULL,
	tokens             bigint NOT NULL,
	bytes_in           bigint NOT NULL,
	bytes_out          bigint NOT NULL,
	PRIMARY KEY (account, kind, id)
);

CREATE INDEX vivarium_usage_places_oldest ON vivarium_usage_places (taken_at, account, kind, id);

CREATE INDEX vivarium_usage_places_oldest_of_account ON vivarium_usage_places (account, taken_at, kind, id);

CREATE TABLE vivarium_usage_entries (
	account            bytea  NOT NULL,
	id                 bytea  NOT NULL,
	kind               bytea  NOT NULL,
	place              bytea  NOT NULL,
	sandbox_id         bytea  NOT NULL,
	run_id             bytea  NOT NULL,
	used_at            bigint NOT NULL,
	sandboxes          bigint NOT NULL,
	runs               bigint NOT NULL,
	claude_time        bigint NOT NULL,
	cost               bigint NOT NULL,
	input_tokens       bigint NOT NULL,
	output_tokens      bigint NOT NULL,
	cache_read_tokens  bigint NOT NULL,
	cache_write_tokens bigint NOT NULL,
	bytes_in           bigint NOT NULL,
	bytes_out          bigint NOT NULL,
	PRIMARY KEY (account, id)
);

CREATE INDEX vivarium_usage_entries_oldest ON vivarium_usage_entries (used_at, account, id);

CREATE INDEX vivarium_usage_entries_oldest_of_account ON vivarium_usage_entries (account, used_at, id);

-- The sums of the entries of a day.
CREATE TABLE vivarium_usage_days (
	account            bytea  NOT NULL,
	day                bigint NOT NULL,
	sandboxes          bigint NOT NULL,
	runs               bigint NOT NULL,
	claude_time        bigint NOT NULL,
	cost               bigint NOT NULL,
	input_tokens       bigint NOT NULL,
	output_tokens      bigint NOT NULL,
	cache_read_tokens  bigint NOT NULL,
	cache_write_tokens bigint NOT NULL,
	bytes_in           bigint NOT NULL,
	bytes_out          bigint NOT NULL,
	PRIMARY KEY (account, day)
);

CREATE INDEX vivarium_usage_days_oldest ON vivarium_usage_days (day, account);
