"""The history of the schema, in alembic's form."""
