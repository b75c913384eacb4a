-- Run once, when the database is made: the site's own role, which row-level security holds back (the image's first
-- role is a superuser, which nothing does).
CREATE ROLE clearframe LOGIN PASSWORD 'clearframe' NOSUPERUSER NOBYPASSRLS NOCREATEROLE;
CREATE DATABASE clearframe OWNER clearframe;
