//! Pictures as data URIs.

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageFormat, RgbImage, RgbaImage};

/// Pixels up to which pictures together are kept as they are; others become JPEG.
const LOSSLESS: usize = 300_000;
const QUALITY: u8 = 85;
/// No picture of a set is made smaller than this.
const LEAST_SIDE: u32 = 24;

/// The side that so many square pictures may have, to be at most so many pixels
/// together.
pub fn side(pictures: usize, pixels: usize) -> u32 {
    let side = (pixels / pictures.max(1)).isqrt();
    (side as u32).max(LEAST_SIDE)
}

/// A picture whose longer side is at most `most`.
pub fn shrunk(picture: RgbImage, most: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longer = width.max(height);
    if longer <= most {
        return picture;
    }
    let scaled = |x: u32| (u64::from(x) * u64::from(most) / u64::from(longer)).max(1) as u32;
    imageops::resize(
        &picture,
        scaled(width),
        scaled(height),
        FilterType::Triangle,
    )
}

/// Pictures as data URIs: PNG where they are small together, else JPEG.
///
/// # Errors
/// The encoder's.
pub fn uris(pictures: &[RgbImage]) -> Result<Vec<String>> {
    let pixels: usize = pictures.iter().map(|p| p.len() / 3).sum();
    pictures
        .iter()
        .map(|p| uri(p, pixels <= LOSSLESS))
        .collect()
}

fn uri(picture: &RgbImage, lossless: bool) -> Result<String> {
    let (width, height) = picture.dimensions();
    let mut bytes = Vec::new();
    if lossless {
        picture
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
            .context("cannot encode a PNG")?;
        return Ok(data_uri("image/png", &bytes));
    }
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(picture, width, height, ExtendedColorType::Rgb8)
        .context("cannot encode a JPEG")?;
    Ok(data_uri("image/jpeg", &bytes))
}

/// Many pictures of one side, row by row in one.
#[derive(Clone, Debug)]
pub struct Sheet {
    pub uri: String,
    pub side: u32,
    pub columns: u32,
}

/// Pictures of at most `side` x `side` pixels on one sheet.
///
/// # Errors
/// The encoder's.
pub fn sheet(pictures: &[RgbImage], side: u32) -> Result<Sheet> {
    let count = pictures.len().max(1) as u32;
    let columns = f64::from(count).sqrt().ceil() as u32;
    let mut whole = RgbImage::new(columns * side, count.div_ceil(columns) * side);
    for (i, picture) in (0u32..).zip(pictures) {
        let [x, y] = [i % columns, i / columns].map(|at| i64::from(at * side));
        imageops::replace(&mut whole, picture, x, y);
    }
    Ok(Sheet {
        uri: uri(&whole, whole.len() / 3 <= LOSSLESS)?,
        side,
        columns,
    })
}

/// Values as colours from dark over red to light yellow, the least to the
/// greatest; `columns` in a row.
///
/// # Errors
/// The encoder's.
pub fn heat(values: &[f32], columns: usize) -> Result<String> {
    ensure!(
        columns > 0 && values.len().is_multiple_of(columns),
        "{} values fill no rows of {columns}",
        values.len()
    );
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = if greatest > least {
        greatest - least
    } else {
        1.0
    };
    let pixels = values.iter().flat_map(|x| {
        let [r, g, b] = colour((x - least) / range);
        [r, g, b, 255]
    });
    let (width, height) = (columns as u32, (values.len() / columns) as u32);
    let picture = RgbaImage::from_raw(width, height, pixels.collect());
    let mut bytes = Vec::new();
    picture
        .context("the values fill no rows")?
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .context("cannot encode a PNG")?;
    Ok(data_uri("image/png", &bytes))
}

/// Of 0..=1; lightness rises all the way, so that it also reads in grey.
fn colour(x: f32) -> [u8; 3] {
    const STOPS: [[f32; 3]; 5] = [
        [8.0, 8.0, 32.0],
        [94.0, 18.0, 110.0],
        [204.0, 60.0, 64.0],
        [250.0, 160.0, 30.0],
        [252.0, 252.0, 170.0],
    ];
    let x = if x.is_finite() {
        x.clamp(0.0, 1.0)
    } else {
        0.0
    } * (STOPS.len() - 1) as f32;
    let at = (x as usize).min(STOPS.len() - 2);
    let (a, b, share) = (STOPS[at], STOPS[at + 1], x - at as f32);
    [0, 1, 2].map(|c| (a[c] + share * (b[c] - a[c])).round() as u8)
}

fn data_uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", base64(bytes))
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            match i <= group.len() {
                true => out.push(char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63])),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, Sec. 10.
    #[test]
    fn base64_is_that_of_the_standard() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xBF]), "+/+/");
    }

    #[test]
    fn sets_of_pictures_stay_within_their_pixels() {
        for (pictures, pixels, expected) in [(8, 800_000, 316), (1, 9, LEAST_SIDE)] {
            assert_eq!(side(pictures, pixels), expected);
        }
        assert_eq!(shrunk(RgbImage::new(400, 100), 40).dimensions(), (40, 10));
        assert_eq!(shrunk(RgbImage::new(9, 900), 30).dimensions(), (1, 30));
        assert_eq!(shrunk(RgbImage::new(32, 20), 224).dimensions(), (32, 20));
    }

    #[test]
    fn a_sheet_has_its_pictures_row_by_row() {
        let tile = |value: u8| RgbImage::from_pixel(8, 8, image::Rgb([value; 3]));
        let found = sheet(&[tile(10), tile(20), tile(30)], 8).unwrap();
        assert_eq!((found.side, found.columns), (8, 2));
        assert!(found.uri.starts_with("data:image/png;base64,"));
        let noise = RgbImage::new(800, 800);
        assert!(uris(&[noise]).unwrap()[0].starts_with("data:image/jpeg;base64,"));
    }

    #[test]
    fn more_is_lighter() {
        let light = |x: f32| colour(x).iter().map(|c| u32::from(*c)).sum::<u32>();
        assert!((1..=50).all(|i| light(i as f32 / 50.0) > light((i - 1) as f32 / 50.0)));
        assert_eq!(colour(f32::NAN), colour(0.0));
        assert!(heat(&[0.5; 4], 2).is_ok() && heat(&[0.5; 3], 2).is_err());
    }
}
