//! The report, live view and comparison, driven as a user does, on run folders
//! that are made up.

mod browser;
mod folder;
mod pages;
mod server;
mod watch;
