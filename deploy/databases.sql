-- Dagster's records and MLflow's do not share a database: both bring their own schema migrations.
CREATE DATABASE dagster;
CREATE DATABASE mlflow;
