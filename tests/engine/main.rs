//! The engine: what requests get in any company, how they end, what they are told.

mod codes;
mod ends;
mod events;
mod gate;
mod models;
