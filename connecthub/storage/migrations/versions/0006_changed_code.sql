-- Plugin modules whose files have changed since this hub loaded them: it runs the old code until it starts again.
ALTER TABLE hubs ADD COLUMN changed_modules text[] NOT NULL DEFAULT '{}';
