//! What training with labels draws for each step: mixtures, erased rectangles,
//! skipped branches. All are pure functions of (seed, step) or (seed, epoch,
//! picture), the picture being the one in the row, also where it stands in for a
//! corrupt one.

use crate::config::{RunConfig, Supervised};
use crate::models;
use crate::programs::mixing::MIX;
use crate::rng::{Purpose, Stream};

/// How often a batch is cut and not blended, where both are allowed.
const CUT: f64 = 0.5;
/// Of an erased rectangle: shares of the picture's area, and the widest ratio of
/// its sides, either way.
const ERASED: [f64; 2] = [0.02, 1.0 / 3.0];
const RATIO: f64 = 0.3;
/// Rectangles drawn until one is small enough.
const TRIES: usize = 10;

/// The argument `mix` of step `step`, counted from 0, for pictures of `side`
/// pixels: see [`crate::programs::mixing`].
pub fn mix(s: &Supervised, seed: u64, step: u32, side: usize) -> [f32; MIX] {
    let mut stream = Stream::new(seed, Purpose::Mix, (0, step));
    let cuts = match (s.mixup > 0.0, s.cutmix > 0.0) {
        (false, false) => return [1.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        (true, true) => stream.chance(CUT),
        (_, cuts) => cuts,
    };
    if !cuts {
        let share = beta(&mut stream, s.mixup) as f32;
        return [share, 0.0, 0.0, 0.0, 0.0, share];
    }
    let share = beta(&mut stream, s.cutmix);
    let centre = [0, 1].map(|_| stream.below(side as u32) as usize);
    let (edges, share) = cut(side, share, centre);
    let [top, bottom, left, right] = edges.map(|edge| edge as f32);
    [1.0, top, bottom, left, right, share as f32]
}

/// CutMix's rectangle (Yun et al. 2019): top, bottom, left, right; and the share
/// of the picture that is left after its border has cut the rectangle.
fn cut(side: usize, share: f64, centre: [usize; 2]) -> ([usize; 4], f64) {
    let half = (side as f64 * (1.0 - share).sqrt()) as usize / 2;
    let span = |centre: usize| [centre.saturating_sub(half), (centre + half).min(side)];
    let [[top, bottom], [left, right]] = centre.map(span);
    let area = ((bottom - top) * (right - left)) as f64 / (side * side) as f64;
    ([top, bottom, left, right], 1.0 - area)
}

/// A draw of Beta(alpha, alpha), by Jöhnk's algorithm (1964).
fn beta(stream: &mut Stream, alpha: f64) -> f64 {
    loop {
        let [x, y] = [stream.uniform(), stream.uniform()].map(|u: f64| u.powf(1.0 / alpha));
        if x + y > 0.0 && x + y <= 1.0 {
            return x / (x + y);
        }
    }
}

/// The argument `drop_path`, [B, blocks, 2]: 0 for a branch that is skipped, else
/// 1 over how often it is not. The rate rises evenly from 0 at the first block.
pub fn drop_path(config: &RunConfig, s: &Supervised, epoch: u32, ids: &[u32]) -> Vec<f32> {
    let blocks = models::blocks(&config.model);
    let rate = |block: usize| s.drop_path * block as f64 / (blocks.max(2) - 1) as f64;
    let mut scales = Vec::with_capacity(2 * blocks * ids.len());
    for &id in ids {
        let mut stream = Stream::new(config.seed, Purpose::DropPath, (epoch, id));
        for block in 0..blocks {
            let kept = 1.0 - rate(block);
            for _half in 0..2 {
                scales.push(if stream.chance(kept) {
                    1.0 / kept as f32
                } else {
                    0.0
                });
            }
        }
    }
    scales
}

/// The argument `erase`, [B, 4]: of each picture the rectangle's top, bottom,
/// left and right; all 0 for none.
pub fn erase(config: &RunConfig, epoch: u32, ids: &[u32]) -> Vec<f32> {
    let side = config.model.image_size;
    let rectangle = |&id: &u32| {
        let mut stream = Stream::new(config.seed, Purpose::Erase, (epoch, id));
        match stream.chance(config.augment.erase_p) {
            true => rectangle(&mut stream, side),
            false => [0; 4],
        }
    };
    ids.iter()
        .flat_map(rectangle)
        .map(|edge| edge as f32)
        .collect()
}

fn rectangle(stream: &mut Stream, side: usize) -> [usize; 4] {
    for _ in 0..TRIES {
        let share = stream.range(ERASED[0], ERASED[1]);
        let log_ratio = stream.range(RATIO.ln(), -RATIO.ln());
        if let Some([height, width]) = erased(side, share, log_ratio) {
            let top = stream.below((side - height + 1) as u32) as usize;
            let left = stream.below((side - width + 1) as u32) as usize;
            return [top, top + height, left, left + width];
        }
    }
    [0; 4]
}

/// Height and width of an erased rectangle (Zhong et al. 2020), by its share of
/// the picture's area and the logarithm of height over width; none if it does not
/// fit.
fn erased(side: usize, share: f64, log_ratio: f64) -> Option<[usize; 2]> {
    let area = share * (side * side) as f64;
    let ratio = log_ratio.exp();
    let sides = [area * ratio, area / ratio].map(|square| square.sqrt().round() as usize);
    sides.iter().all(|length| *length < side).then_some(sides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervised(mixup: f64, cutmix: f64) -> Supervised {
        Supervised {
            classes: 10,
            label_smoothing: 0.1,
            mixup,
            cutmix,
            drop_path: 0.2,
        }
    }

    /// Mean 1/2 and variance 1 / (4 (2 alpha + 1)) of Beta(alpha, alpha).
    #[test]
    fn shares_are_of_a_beta_distribution() {
        for alpha in [0.3, 0.8, 1.0, 4.0] {
            let mut stream = Stream::new(3, Purpose::Test, (0, 0));
            let n = 20_000;
            let all: Vec<f64> = (0..n).map(|_| beta(&mut stream, alpha)).collect();
            let mean = all.iter().sum::<f64>() / f64::from(n);
            let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean - 0.5).abs() < 0.01, "{alpha}: {mean}");
            assert!(
                (variance / expected - 1.0).abs() < 0.05,
                "{alpha}: {variance}"
            );
        }
    }

    /// Those of CutMix are torchvision's, the erased ones timm's, the draws given.
    #[test]
    fn rectangles_are_those_of_the_public_libraries() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/parity/rectangles.json"
        );
        let cases: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<usize> {
            let all = value.as_array().unwrap().iter();
            all.map(|x| x.as_u64().unwrap() as usize).collect()
        };
        let cuts = cases["cut"].as_array().unwrap();
        assert!(cuts.len() > 4);
        for case in cuts {
            let centre: [usize; 2] = numbers(&case["centre"]).try_into().unwrap();
            let side = case["side"].as_u64().unwrap() as usize;
            let (found, left) = cut(side, case["share"].as_f64().unwrap(), centre);
            assert_eq!(found[..], numbers(&case["box"]), "{case}");
            assert!(
                (left - case["left"].as_f64().unwrap()).abs() < 1e-12,
                "{case}"
            );
        }
        let all = cases["erased"].as_array().unwrap();
        assert!(all.len() > 4 && all.iter().any(|case| case["box"].is_null()));
        for case in all {
            let [share, log_ratio] = ["area", "log_ratio"].map(|key| case[key].as_f64().unwrap());
            let found = erased(case["side"].as_u64().unwrap() as usize, share, log_ratio);
            let wanted = case["box"].as_array().map(|_| {
                let edges = numbers(&case["box"]);
                [edges[1] - edges[0], edges[3] - edges[2]]
            });
            assert_eq!(found, wanted, "{case}");
        }
    }

    #[test]
    fn without_mixing_every_picture_is_itself() {
        assert_eq!(
            mix(&supervised(0.0, 0.0), 1, 7, 32),
            [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        );
    }

    #[test]
    fn half_of_the_batches_are_cut_and_the_share_is_what_is_left() {
        let s = supervised(0.8, 1.0);
        let all: Vec<[f32; MIX]> = (0..4000).map(|step| mix(&s, 1, step, 32)).collect();
        let cut = all.iter().filter(|mix| mix[0] == 1.0);
        assert!((1850..2150).contains(&cut.clone().count()));
        for [_, top, bottom, left, right, share] in cut {
            let area = (bottom - top) * (right - left) / 1024.0;
            assert!((1.0 - area - share).abs() < 1e-6);
            assert!(*top >= 0.0 && *bottom <= 32.0 && *left >= 0.0 && *right <= 32.0);
        }
        for [blend, rest @ .., share] in all.iter().filter(|mix| mix[0] != 1.0) {
            assert_eq!((blend, rest), (share, &[0.0; 4]));
        }
    }

    fn config() -> RunConfig {
        RunConfig::from_value(serde_json::json!({
            "batch": 16,
            "model": {"arch": "vit", "blocks": 3, "dim": 16, "heads": 2, "patch": 8, "image_size": 64},
            "method": {"name": "supervised", "supervised": {"classes": 10, "drop_path": 0.2}},
            "augment": {"erase_p": 0.25},
            "optimizer": {"base_lr": 1e-3, "weight_decay": 0.1},
            "schedule": {"epochs": 10},
        }))
        .unwrap()
    }

    #[test]
    fn branches_are_skipped_as_often_as_their_block_says() {
        let config = config();
        let s = config.method.supervised.clone().unwrap();
        let ids: Vec<u32> = (0..5000).collect();
        let scales = drop_path(&config, &s, 4, &ids);
        for (at, rate) in [0.0, 0.0, 0.1, 0.1, 0.2, 0.2].into_iter().enumerate() {
            let own: Vec<f32> = scales.iter().copied().skip(at).step_by(6).collect();
            let kept = own.iter().filter(|scale| **scale > 0.0).count() as f64 / 5000.0;
            assert!((kept - (1.0 - rate)).abs() < 0.02, "{at}: {kept}");
            let mean = own.iter().sum::<f32>() / 5000.0;
            assert!((mean - 1.0).abs() < 0.02, "{at}: {mean}");
        }
        assert_eq!(drop_path(&config, &s, 4, &ids[7..8]), scales[42..48]);
    }

    #[test]
    fn a_quarter_of_the_pictures_lose_a_rectangle() {
        let config = config();
        let ids: Vec<u32> = (0..4000).collect();
        let boxes = erase(&config, 0, &ids);
        let areas: Vec<f32> = boxes
            .chunks(4)
            .map(|edges| (edges[1] - edges[0]) * (edges[3] - edges[2]) / 4096.0)
            .filter(|area| *area > 0.0)
            .collect();
        assert!((900..1100).contains(&areas.len()), "{}", areas.len());
        // Sides are rounded to pixels.
        assert!(areas.iter().all(|area| (0.015..0.36).contains(area)));
    }
}
