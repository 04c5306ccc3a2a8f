-- What a server looks for that takes over what another has left.
ALTER TABLE vivarium_runs ADD COLUMN running integer NOT NULL DEFAULT 0;

UPDATE vivarium_runs SET running = 1 WHERE convert_from(record, 'UTF8')::json->>'state' = 'running';

CREATE INDEX vivarium_runs_running ON vivarium_runs (started_at, id) WHERE running = 1;
