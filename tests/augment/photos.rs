//! On real photographs, which are not stored here.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use xla_moco::data::crop::CropBox;
use xla_moco::data::decode::decode;
use xla_moco::data::resize::Scaler;

use crate::cases::{Case, Fixtures, operations, views};
use crate::run::{by_group, everything, run_cases};
use crate::support;

/// Real photographs, by the files that tools/reference/photos.py wrote, and
/// with the photographs themselves the whole path from the JPEG on. Everything
/// must be within one level of 255.
#[test]
#[ignore = "needs XLA_MOCO_PHOTO_FIXTURES and XLA_MOCO_PHOTOS, see the test"]
fn it_is_torchvisions_on_photographs() {
    let folder = |name: &str| {
        let path = std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
        PathBuf::from(path)
    };
    let fixtures =
        Fixtures::read(&folder("XLA_MOCO_PHOTO_FIXTURES").join("operations.safetensors"));
    let photos = folder("XLA_MOCO_PHOTOS");
    let (side, pictures) = fixtures.pictures("picture");
    let (_, header) = SafeTensors::read_metadata(&fixtures.0).unwrap();
    let names = header.metadata().as_ref().unwrap();
    let own: Vec<Vec<u8>> = (0..pictures.len())
        .map(|i| whole_crop(&photos.join(&names[&i.to_string()]), side))
        .collect();
    support::on_each_cpu_plugin(1, |name, client| {
        let check = |title: &str, cases: &[Case], normalised: bool| {
            let found = run_cases(client, cases, &everything(normalised));
            for (group, off) in by_group(cases, &found) {
                // Normalised values are about 1 / .226 times as far apart.
                let mean = off.mean() * if normalised { 0.226 } else { 1.0 };
                eprintln!(
                    "{name} {title} {group}: mean {mean:.2e} of 1 (1/255 is 3.9e-3), largest {:.2e}",
                    off.largest
                );
                assert!(mean <= 1.0 / 255.0, "{name} {title} {group}: {mean}");
            }
        };
        check("device", &operations(&fixtures), false);
        check("device", &views(&fixtures), true);
        let mut cases = views(&fixtures);
        for case in &mut cases {
            let which = pictures.iter().position(|p| *p == case.picture).unwrap();
            case.picture.clone_from(&own[which]);
        }
        check("from the JPEG", &cases, true);
    });
}

/// The whole of a photograph, as the loader decodes and resizes it.
fn whole_crop(photo: &Path, side: usize) -> Vec<u8> {
    let picture = decode(&std::fs::read(photo).unwrap(), false).unwrap();
    let part = CropBox {
        x: 0,
        y: 0,
        width: picture.width,
        height: picture.height,
    };
    let mut out = vec![0; side * side * 3];
    let px = side as u32;
    Scaler::default()
        .crop(&picture, part, px, &mut out)
        .unwrap();
    out
}
