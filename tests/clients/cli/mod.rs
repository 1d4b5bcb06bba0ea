//! The command line by its fixed forms: arguments, output, exit codes.
#![allow(clippy::disallowed_methods)] // tests of files and processes

mod broker;
mod demo;
mod local;
mod pressure;
mod quotas;
mod records;
mod running;
