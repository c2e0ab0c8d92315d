//! What a representation is worth: measures on held-out pictures.
//!
//! The way of a picture: [`extract`] makes features of it on the device, once;
//! [`knn`] finds its nearest neighbours on the device; [`vote`] turns those
//! into a class on the host, for any number of neighbours and any temperature.
//! [`probe`] trains linear classifiers on them; [`classify`] asks the classifier
//! that training with labels has learned. [`map`] puts features on a plane,
//! [`attention`] and [`views`] make pictures of what the model does and sees.

pub mod attention;
pub mod classify;
pub mod extract;
pub mod knn;
pub mod map;
pub mod probe;
pub mod views;
pub mod vote;
