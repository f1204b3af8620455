//! The whole system: the real daemon on the real kernel, a real registry, images made here, crictl.
//!
//! `hack/test` runs this as root in network and mount namespaces of its own (`hack/ns`), with the programs in
//! `CREEL_BIN` and what they are tested with in `CREEL_CACHE`. Every test ends with the leak checker (`check`).

#![allow(unreachable_pub, clippy::print_stderr, clippy::type_complexity, reason = "a program of tests: nobody else sees its items")]

mod archives;
mod build;
mod buildcontext;
mod buildcontexts;
mod buildcopy;
mod buildgraph;
mod buildmore;
mod buildout;
mod buildplatform;
mod buildrun;
mod cdi;
mod cgroup2;
mod check;
mod checkpoint;
mod commands;
mod containers;
mod corpus;
mod crictl;
mod daemon;
mod events;
mod handlers;
mod image;
mod imageapi;
mod images;
mod imagesystem;
mod imagevolumes;
mod isolation;
mod journeys;
mod json;
mod layers;
mod life;
mod life4;
mod life5;
mod limits;
mod network;
mod networks;
mod nri;
mod podman;
mod pods;
mod recovery;
mod registry;
mod rollback;
mod security;
mod sessions;
mod sharing;
mod snapshots;
mod stats;
mod streaming;
mod transcript;
mod userns;
mod volumes;
