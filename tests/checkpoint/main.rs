//! Checkpoints: readers, conversion and detection, on good files, on bad ones, and on random bytes.

mod bad_configurations;
mod bad_files;
mod configurations;
mod conversion;
mod files;
mod hostile;
mod reading;
mod text_encoders;
