//! Bytes of a picture file to 8-bit RGB.
//!
//! The format is read from the first bytes, never from the name. Alpha is
//! dropped and 16-bit samples are scaled to 8, grey and CMYK become RGB.

use std::io::Cursor;

use anyhow::{Context, Result, anyhow, bail, ensure};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// The largest picture that is decoded, in pixels. Checked after the header
/// and before memory is taken.
pub const MAX_PIXELS: u64 = 64_000_000;

/// The smallest side that is decoded: a picture of one pixel, as trackers leave
/// them in scraped folders, has no two views.
pub const MIN_SIDE: u64 = 4;

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// In pixels, at least 1.
    pub width: u32,
    /// In pixels, at least 1.
    pub height: u32,
    /// `height` x `width` x 3, row-major, RGB.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// A picture of the given pixels.
    ///
    /// # Errors
    /// If the sides are 0 or do not fit the number of bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        let expected = u64::from(width) * u64::from(height) * 3;
        ensure!(
            expected > 0 && rgb.len() as u64 == expected,
            "{width}x{height} RGB pixels need {expected} bytes, found {}",
            rgb.len()
        );
        Ok(Self { width, height, rgb })
    }
}

/// Decodes a JPEG, PNG or WebP file (the first frame of an animation).
/// `exif_orientation` turns the picture upright as its EXIF data says.
///
/// # Errors
/// If the bytes are of another format, cut short, broken, of more than
/// [`MAX_PIXELS`] or less than [`MIN_SIDE`].
pub fn decode(bytes: &[u8], exif_orientation: bool) -> Result<Picture> {
    match Format::sniff(bytes) {
        Format::Jpeg => decode_jpeg(bytes, exif_orientation),
        Format::Other(format) => decode_other(bytes, format, exif_orientation),
        Format::Unknown(what) => bail!("expected a JPEG, PNG or WebP picture, found {what}"),
    }
}

enum Format {
    Jpeg,
    Other(ImageFormat),
    Unknown(String),
}

impl Format {
    fn sniff(bytes: &[u8]) -> Self {
        match bytes {
            [0xFF, 0xD8, ..] => Self::Jpeg,
            [0x89, b'P', b'N', b'G', ..] => Self::Other(ImageFormat::Png),
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Self::Other(ImageFormat::WebP),
            [] => Self::Unknown("an empty file".into()),
            [b'G', b'I', b'F', b'8', ..] => Self::Unknown("a GIF".into()),
            [b'B', b'M', ..] => Self::Unknown("a BMP".into()),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Self::Unknown("a TIFF".into()),
            _ => {
                let start = &bytes[..bytes.len().min(16)];
                Self::Unknown(format!("a file that begins \"{}\"", start.escape_ascii()))
            }
        }
    }
}

fn check_size(width: u64, height: u64) -> Result<()> {
    ensure!(
        width > 0 && height > 0,
        "the header claims {width}x{height}"
    );
    ensure!(
        width.min(height) >= MIN_SIDE,
        "the picture has {width}x{height} pixels; two views can be cut from {MIN_SIDE}x{MIN_SIDE} \
         and up"
    );
    // Sides are below 2^32, so the product cannot overflow.
    ensure!(
        width * height <= MAX_PIXELS,
        "the header claims {width}x{height} pixels; the limit is {} megapixels",
        MAX_PIXELS / 1_000_000
    );
    Ok(())
}

fn decode_jpeg(bytes: &[u8], exif_orientation: bool) -> Result<Picture> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let broken = |e| anyhow!("broken JPEG: {e}");
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().context("the JPEG has no size")?;
    check_size(width as u64, height as u64)?;
    // The decoder fills what is missing with grey. A picture half grey is no
    // sample of the data, so a file without its end is refused.
    ensure!(
        jpeg_is_complete(bytes),
        "the JPEG is cut short: its end marker is missing"
    );
    let rgb = decoder.decode().map_err(broken)?;
    let picture = Picture::new(width as u32, height as u32, rgb)?;
    let orientation = decoder
        .exif()
        .filter(|_| exif_orientation)
        .and_then(|chunk| Orientation::from_exif_chunk(chunk));
    match orientation {
        None | Some(Orientation::NoTransforms) => Ok(picture),
        Some(orientation) => {
            let buffer = image::RgbImage::from_raw(picture.width, picture.height, picture.rgb)
                .context("the pixels do not fit the size")?;
            let mut dynamic = DynamicImage::ImageRgb8(buffer);
            dynamic.apply_orientation(orientation);
            from_dynamic(dynamic)
        }
    }
}

/// Whether the end marker (FF D9) stands after the last start of scan
/// (FF DA). Inside a scan every FF byte is escaped, so neither pair occurs
/// there; an embedded thumbnail's end comes before the picture's own scan.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    bytes
        .windows(2)
        .rev()
        .find(|pair| matches!(pair, [0xFF, 0xD9 | 0xDA]))
        .is_some_and(|pair| pair[1] == 0xD9)
}

fn decode_other(bytes: &[u8], format: ImageFormat, exif_orientation: bool) -> Result<Picture> {
    let broken = || format!("broken {}", format.extensions_str()[0].to_uppercase());
    let reader = image::ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().with_context(broken)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let orientation = if exif_orientation {
        decoder.orientation().with_context(broken)?
    } else {
        Orientation::NoTransforms
    };
    let mut dynamic = DynamicImage::from_decoder(decoder).with_context(broken)?;
    dynamic.apply_orientation(orientation);
    from_dynamic(dynamic)
}

fn from_dynamic(dynamic: DynamicImage) -> Result<Picture> {
    let buffer = dynamic.into_rgb8();
    let (width, height) = buffer.dimensions();
    Picture::new(width, height, buffer.into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_marker_inside_the_header_does_not_make_a_file_complete() {
        let thumbnail_end_then_scan = [0xFF, 0xD8, 0xFF, 0xD9, 0xFF, 0xDA, 1, 2];
        assert!(!jpeg_is_complete(&thumbnail_end_then_scan));
        let with_end_and_padding = [0xFF, 0xD8, 0xFF, 0xDA, 1, 2, 0xFF, 0xD9, 0, 0];
        assert!(jpeg_is_complete(&with_end_and_padding));
    }

    #[test]
    fn what_is_not_a_picture_is_named() {
        for (bytes, word) in [
            (&b""[..], "an empty file"),
            (b"GIF89a...", "a GIF"),
            (b"hello there", "hello there"),
            (b"\x00\x01", "\\x00\\x01"),
        ] {
            let error = decode(bytes, true).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn sides_must_fit_the_bytes() {
        assert!(Picture::new(2, 1, vec![0; 6]).is_ok());
        assert!(Picture::new(2, 1, vec![0; 5]).is_err());
        assert!(Picture::new(0, 1, vec![]).is_err());
    }
}
