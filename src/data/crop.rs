//! Which part of a picture is looked at.

use crate::rng::Stream;

/// A box inside a picture, in whole pixels; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// Bounds of a crop's width to height: 3/4 to 4/3.
const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Tries before the central crop is taken.
const TRIES: usize = 10;

/// RandomResizedCrop's box (Szegedy et al. 2015, in torchvision's form) in a
/// picture of `width` x `height`: an area of U(`crop_min`, 1) of the picture,
/// a log-uniform ratio in 3/4..4/3, any place where it fits; after ten that
/// do not fit, the largest central box whose ratio is in bounds.
pub fn random_resized(stream: &mut Stream, width: u32, height: u32, crop_min: f64) -> CropBox {
    let area = f64::from(width) * f64::from(height);
    for _ in 0..TRIES {
        let target = area * stream.range(crop_min, 1.0);
        let ratio = stream.range(RATIO.0.ln(), RATIO.1.ln()).exp();
        // Python's round(), which torchvision uses, takes ties to even.
        let w = (target * ratio).sqrt().round_ties_even();
        let h = (target / ratio).sqrt().round_ties_even();
        if w >= 1.0 && h >= 1.0 && w <= f64::from(width) && h <= f64::from(height) {
            let (w, h) = (w as u32, h as u32);
            let y = stream.below(height - h + 1);
            let x = stream.below(width - w + 1);
            return CropBox {
                x,
                y,
                width: w,
                height: h,
            };
        }
    }
    central(width, height)
}

fn central(width: u32, height: u32) -> CropBox {
    let (w, h) = (f64::from(width), f64::from(height));
    let (mut crop_width, mut crop_height) = (width, height);
    if w / h < RATIO.0 {
        crop_height = ((w / RATIO.0).round_ties_even() as u32).clamp(1, height);
    } else if w / h > RATIO.1 {
        crop_width = ((h * RATIO.1).round_ties_even() as u32).clamp(1, width);
    }
    CropBox {
        x: (width - crop_width) / 2,
        y: (height - crop_height) / 2,
        width: crop_width,
        height: crop_height,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn boxes(width: u32, height: u32, crop_min: f64, n: u32) -> Vec<CropBox> {
        (0..n)
            .map(|i| {
                let mut stream = Stream::new(3, Purpose::Test, (0, i));
                random_resized(&mut stream, width, height, crop_min)
            })
            .collect()
    }

    #[test]
    fn boxes_lie_inside_whatever_the_shape() {
        for (width, height) in [
            (1, 1),
            (1, 1000),
            (1000, 1),
            (2, 3),
            (500, 375),
            (64_000, 7),
        ] {
            for b in boxes(width, height, 0.08, 200) {
                assert!(b.width >= 1 && b.x + b.width <= width, "{b:?}");
                assert!(b.height >= 1 && b.y + b.height <= height, "{b:?}");
            }
        }
    }

    /// In a square picture a draw of area a fits with probability
    /// min(1, -ln a / ln 4/3); so the mean area of those that fit, from
    /// U(.08, 1), is (.27805 + .09893) / (.67 + .11903) = .4778.
    #[test]
    fn area_and_ratio_follow_their_distribution() {
        let n = 20_000;
        let all = boxes(1000, 1000, 0.08, n);
        let mean = |f: &dyn Fn(&CropBox) -> f64| all.iter().map(f).sum::<f64>() / f64::from(n);
        let area = mean(&|b| f64::from(b.width) * f64::from(b.height) / 1e6);
        let log_ratio = mean(&|b| (f64::from(b.width) / f64::from(b.height)).ln());
        assert!((area - 0.4778).abs() < 0.006, "mean area {area}");
        assert!(log_ratio.abs() < 0.01, "mean log ratio {log_ratio}");
        let smallest = all.iter().map(|b| b.width * b.height).min();
        assert!(smallest.is_some_and(|a| a >= 79_000), "{smallest:?}");
    }

    #[test]
    fn the_fallback_is_the_largest_central_box_in_bounds() {
        let cases = [
            ((100, 100), (0, 0, 100, 100)),
            ((1000, 30), (480, 0, 40, 30)),
            ((30, 1000), (0, 480, 30, 40)),
        ];
        for ((w, h), (x, y, width, height)) in cases {
            let expected = CropBox {
                x,
                y,
                width,
                height,
            };
            assert_eq!(central(w, h), expected);
        }
    }
}
