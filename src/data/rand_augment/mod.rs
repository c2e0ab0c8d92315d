//! RandAugment (Cubuk et al. 2020) on crops, as timm's "increasing" policy has
//! it and DeiT uses it: operations of Pillow on 8-bit pictures, of which some
//! are drawn for each picture, and each happens with probability 1/2.

mod affine;
mod colour;

use crate::config::RandAugment;
use crate::rng::{Purpose, Stream};

/// How often a drawn operation happens.
const P: f64 = 0.5;
/// The scale of magnitudes.
const MOST: f64 = 10.0;

/// What can be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Colour,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

impl Operation {
    pub const ALL: [Self; 15] = [
        Self::AutoContrast,
        Self::Equalize,
        Self::Invert,
        Self::Rotate,
        Self::Posterize,
        Self::Solarize,
        Self::SolarizeAdd,
        Self::Colour,
        Self::Contrast,
        Self::Brightness,
        Self::Sharpness,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
    ];
}

/// One operation on one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    pub operation: Operation,
    /// 0..=10; more is further from the picture.
    pub magnitude: f64,
    /// To the left, anticlockwise, or less of it, where there are two ways.
    pub negative: bool,
}

/// What happens to a picture of an epoch.
pub fn draw(config: &RandAugment, seed: u64, epoch: u32, sample: u32) -> Vec<Draw> {
    let mut stream = Stream::new(seed, Purpose::RandAugment, (epoch, sample));
    let mut drawn = Vec::new();
    for _ in 0..config.operations {
        let operation = Operation::ALL[stream.below(Operation::ALL.len() as u32) as usize];
        let happens = stream.chance(P);
        let magnitude = config.magnitude + config.magnitude_std * stream.normal();
        let negative = stream.chance(0.5);
        if happens {
            drawn.push(Draw {
                operation,
                magnitude: magnitude.clamp(0.0, MOST),
                negative,
            });
        }
    }
    drawn
}

/// Applies one operation to a picture of `side` x `side` RGB pixels. What comes
/// from outside of it has the colour `fill`.
pub fn apply(picture: &mut [u8], side: usize, fill: [u8; 3], draw: &Draw) {
    let share = draw.magnitude / MOST;
    let signed = |x: f64| if draw.negative { -x } else { x };
    // Of enhancements: 1 leaves the picture as it is.
    let factor = (1.0 + signed(0.9 * share)).max(0.1) as f32;
    let length = side as f64;
    match draw.operation {
        Operation::AutoContrast => colour::auto_contrast(picture),
        Operation::Equalize => colour::equalize(picture),
        Operation::Invert => colour::map(picture, |x| 255 - x),
        Operation::Posterize => {
            let bits = 4 - (4.0 * share) as u32;
            let mask = !((1u32 << (8 - bits)) - 1) as u8;
            colour::map(picture, |x| x & mask);
        }
        Operation::Solarize => {
            let from = 256 - ((256.0 * share) as u32).min(256);
            colour::map(picture, |x| if u32::from(x) < from { x } else { 255 - x });
        }
        Operation::SolarizeAdd => {
            let more = ((110.0 * share) as u8).min(128);
            colour::map(
                picture,
                |x| if x < 128 { x.saturating_add(more) } else { x },
            );
        }
        Operation::Colour => colour::saturate(picture, factor),
        Operation::Contrast => colour::contrast(picture, factor),
        Operation::Brightness => colour::map(picture, |x| colour::blend(0, x, factor)),
        Operation::Sharpness => colour::sharpen(picture, side, factor),
        Operation::Rotate => {
            let matrix = affine::rotation(signed(30.0 * share), length);
            affine::transform(picture, side, fill, matrix);
        }
        Operation::ShearX => {
            let matrix = [1.0, signed(0.3 * share), 0.0, 0.0, 1.0, 0.0];
            affine::transform(picture, side, fill, matrix);
        }
        Operation::ShearY => {
            let matrix = [1.0, 0.0, 0.0, signed(0.3 * share), 1.0, 0.0];
            affine::transform(picture, side, fill, matrix);
        }
        Operation::TranslateX => {
            let matrix = [1.0, 0.0, signed(0.45 * share) * length, 0.0, 1.0, 0.0];
            affine::transform(picture, side, fill, matrix);
        }
        Operation::TranslateY => {
            let matrix = [1.0, 0.0, 0.0, 0.0, 1.0, signed(0.45 * share) * length];
            affine::transform(picture, side, fill, matrix);
        }
    }
}

/// The colour that stands for nothing: the mean of the normalisation, in 8 bits.
pub fn fill(mean: [f64; 3]) -> [u8; 3] {
    mean.map(|x| (255.0 * x).round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_two_operations_happen_and_all_are_drawn() {
        let config = RandAugment::default();
        let all: Vec<Vec<Draw>> = (0..6000)
            .map(|sample| draw(&config, 5, 1, sample))
            .collect();
        let happened: usize = all.iter().map(Vec::len).sum();
        assert!((5800..6200).contains(&happened), "{happened}");
        for operation in Operation::ALL {
            let own = all
                .iter()
                .flatten()
                .filter(|draw| draw.operation == operation);
            let count = own.clone().count();
            assert!((320..480).contains(&count), "{operation:?}: {count}");
            let negative = own.filter(|draw| draw.negative).count() as f64;
            assert!((negative / count as f64 - 0.5).abs() < 0.1);
        }
        let magnitudes: Vec<f64> = all.iter().flatten().map(|draw| draw.magnitude).collect();
        let mean = magnitudes.iter().sum::<f64>() / magnitudes.len() as f64;
        // A little under 9: what is above 10 is 10.
        assert!((8.95..9.01).contains(&mean), "{mean}");
        assert!(magnitudes.iter().all(|m| (6.0..=10.0).contains(m)));
        assert_eq!(draw(&config, 5, 1, 17), all[17]);
    }
}
