//! Crops to a fixed size: bilinear with antialias, as Pillow does it.

use anyhow::{Context, Result, ensure};
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::crop::CropBox;
use super::decode::Picture;

/// Resizes pictures; holds its scratch memory, so keep one per thread.
pub struct Scaler {
    resizer: Resizer,
    options: ResizeOptions,
}

impl Default for Scaler {
    fn default() -> Self {
        Self {
            resizer: Resizer::new(),
            options: ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)),
        }
    }
}

impl Scaler {
    /// Resizes a part of a picture into `out`, `px` x `px` x 3 bytes,
    /// row-major. Pixels outside the part are not looked at: it is first cut
    /// out, then resized, as torchvision's `resized_crop`.
    ///
    /// # Errors
    /// If the part is not inside the picture or `out` is of another size.
    pub fn crop(
        &mut self,
        picture: &Picture,
        part: CropBox,
        px: u32,
        out: &mut [u8],
    ) -> Result<()> {
        check_out(px, out)?;
        let source = view(picture)?;
        let CropBox {
            x,
            y,
            width,
            height,
        } = part;
        let cropped =
            TypedCroppedImage::from_ref(&source, x, y, width, height).with_context(|| {
                format!("cropping {part:?} of {}x{}", picture.width, picture.height)
            })?;
        let mut target = TypedImage::<U8x3>::from_buffer(px, px, out)?;
        self.resizer
            .resize_typed(&cropped, &mut target, &self.options)?;
        Ok(())
    }

    /// The evaluation view into `out`, `px` x `px` x 3 bytes: the shorter
    /// side resized to `px` * 256 / 224, then the central `px` x `px`. A
    /// picture that is `px` x `px` already is copied.
    ///
    /// # Errors
    /// If `out` is of another size.
    pub fn central(&mut self, picture: &Picture, px: u32, out: &mut [u8]) -> Result<()> {
        check_out(px, out)?;
        if (picture.width, picture.height) == (px, px) {
            out.copy_from_slice(&picture.rgb);
            return Ok(());
        }
        let (width, height) = evaluation_size(picture.width, picture.height, px);
        // The box that the central pixels come from. A box, not a cut-out:
        // the filter reads past its edges just as if the whole picture had
        // been resized, and no memory is taken for the rest.
        let source_box = |resized: u64, side: u32| {
            let start = ((resized - u64::from(px)) as f64 / 2.0).round_ties_even();
            let scale = f64::from(side) / resized as f64;
            (start * scale, f64::from(px) * scale)
        };
        let (left, box_width) = source_box(width, picture.width);
        let (top, box_height) = source_box(height, picture.height);
        let options = self.options.crop(left, top, box_width, box_height);
        let mut target = TypedImage::<U8x3>::from_buffer(px, px, out)?;
        self.resizer
            .resize_typed(&view(picture)?, &mut target, &options)?;
        Ok(())
    }
}

fn view(picture: &Picture) -> Result<TypedImageRef<'_, U8x3>> {
    TypedImageRef::from_buffer(picture.width, picture.height, &picture.rgb)
        .context("the pixels do not fit the size")
}

fn check_out(px: u32, out: &[u8]) -> Result<()> {
    let expected = px as usize * px as usize * 3;
    ensure!(
        px > 0 && out.len() == expected,
        "a {px}x{px} view needs {expected} bytes, found {}",
        out.len()
    );
    Ok(())
}

/// The size after the shorter side became `px` * 256 / 224; the longer one is
/// rounded down, as torchvision does.
fn evaluation_size(width: u32, height: u32, px: u32) -> (u64, u64) {
    let short = (f64::from(px) * 256.0 / 224.0).round() as u64;
    let long = |long: u32, of: u32| short * u64::from(long) / u64::from(of);
    if width <= height {
        (short, long(height, width))
    } else {
        (long(width, height), short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_sizes_are_those_of_torchvision() {
        assert_eq!(evaluation_size(500, 375, 224), (341, 256));
        assert_eq!(evaluation_size(375, 500, 224), (256, 341));
        assert_eq!(evaluation_size(64, 64, 32), (37, 37));
    }

    #[test]
    fn a_flat_picture_stays_flat_and_one_of_the_right_size_is_copied() {
        let mut scaler = Scaler::default();
        let flat = Picture::new(7, 5, [10, 200, 30].repeat(35)).unwrap();
        let mut out = vec![0; 8 * 8 * 3];
        scaler.central(&flat, 8, &mut out).unwrap();
        assert_eq!(out, [10, 200, 30].repeat(64));

        let noise = Picture::new(2, 2, (0..12).collect()).unwrap();
        let mut out = vec![0; 12];
        scaler.central(&noise, 2, &mut out).unwrap();
        assert_eq!(out, noise.rgb);
    }

    #[test]
    fn pixels_outside_the_part_are_not_looked_at() {
        let mut rgb = vec![255; 12 * 4 * 3];
        for row in rgb.chunks_mut(36) {
            row[12..24].fill(0);
        }
        let picture = Picture::new(12, 4, rgb).unwrap();
        let part = CropBox {
            x: 4,
            y: 0,
            width: 4,
            height: 4,
        };
        for px in [2, 4, 9] {
            let mut out = vec![1; (px * px * 3) as usize];
            Scaler::default()
                .crop(&picture, part, px, &mut out)
                .unwrap();
            assert!(out.iter().all(|&v| v == 0), "{px}: {out:?}");
        }
    }

    #[test]
    fn a_part_outside_the_picture_is_refused() {
        let picture = Picture::new(2, 2, vec![0; 12]).unwrap();
        let part = CropBox {
            x: 1,
            y: 0,
            width: 2,
            height: 2,
        };
        let result = Scaler::default().crop(&picture, part, 1, &mut [0; 3]);
        assert!(result.unwrap_err().to_string().contains("of 2x2"));
    }

    #[test]
    fn a_needle_does_not_take_memory_for_its_length() {
        let picture = Picture::new(3_000_000, 1, vec![7; 9_000_000]).unwrap();
        let mut out = vec![0; 32 * 32 * 3];
        Scaler::default().central(&picture, 32, &mut out).unwrap();
        assert!(out.iter().all(|&v| v == 7));
    }
}
