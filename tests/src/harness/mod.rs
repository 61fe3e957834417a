//! The lab that demo and e2e share: hosts, programs on them, clients and loads.

pub mod bookshop;
pub mod cgroup;
pub mod client;
pub mod control;
pub mod dns;
pub mod echo;
pub mod isolate;
pub mod lab;
pub mod load;
pub mod nameserver;
mod netlink;
pub mod netns;
pub mod peer;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod script;
pub mod thief;
pub mod wire;
