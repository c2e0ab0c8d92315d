//! The page's sections. All but the map are there without the script.

use std::fmt::Write;

use anyhow::Result;
use image::RgbImage;

use super::super::page::escape;
use super::picture::{heat, uris};
use super::{Attention, Labelled, Look, Map, Pair, Pairs, Query, View};

pub fn neighbours(out: &mut String, queries: &[Query]) -> Result<()> {
    let near = queries.iter().flat_map(|query| &query.near);
    let judged: Vec<bool> = queries
        .iter()
        .flat_map(|query| {
            query
                .near
                .iter()
                .filter_map(|(near, _)| query.is_right(near))
        })
        .collect();
    let right = judged.iter().filter(|right| **right).count();
    let words = match judged.len() {
        0 => "no classes to compare".to_owned(),
        all => format!("{right} of {all} neighbours have the picture's class"),
    };
    let _ = write!(
        out,
        "<h2 id=\"neighbours\">Nearest neighbours</h2>\n<p>Random test pictures, and the training \
         pictures whose features are nearest, with the cosine; nearest first. {words}. Each is cut \
         as the model sees it.</p>\n"
    );
    let pictures: Vec<RgbImage> = queries
        .iter()
        .map(|query| &query.asked)
        .chain(near.map(|(near, _)| near))
        .map(|labelled| labelled.picture.clone())
        .collect();
    let uris = uris(&pictures)?;
    let mut of_near = uris[queries.len()..].iter();
    for (query, uri) in queries.iter().zip(&uris) {
        out.push_str("<div class=\"card query\">\n<figure class=\"asked\">");
        let _ = write!(
            out,
            "{}<figcaption>{}</figcaption></figure>\n<div class=\"near\" role=\"list\">\n",
            img(uri, &query.asked),
            caption(&query.asked)
        );
        for ((near, cosine), uri) in query.near.iter().zip(&mut of_near) {
            let (class, mark) = match query.is_right(near) {
                Some(true) => (
                    " right",
                    " <span class=\"mark\" title=\"the picture's class\">✓</span>",
                ),
                Some(false) => (
                    " wrong",
                    " <span class=\"mark\" title=\"another class\">✗</span>",
                ),
                None => ("", ""),
            };
            let _ = writeln!(
                out,
                "<figure role=\"listitem\" class=\"tile{class}\">{}<figcaption><b>{cosine:.3}</b>{mark}\
                 {}</figcaption></figure>",
                img(uri, near),
                caption(near)
            );
        }
        out.push_str("</div></div>\n");
    }
    Ok(())
}

fn img(uri: &str, of: &Labelled) -> String {
    let class = of.class.as_deref().unwrap_or("no class");
    format!(
        "<img src=\"{uri}\" alt=\"{}: {}\" title=\"{1}\"{2}>",
        escape(class),
        escape(&of.name),
        sharp(&of.picture)
    )
}

/// Tiny pictures are shown with their pixels.
fn sharp(picture: &RgbImage) -> &'static str {
    match picture.width().max(picture.height()) <= 64 {
        true => " class=\"sharp\"",
        false => "",
    }
}

fn caption(of: &Labelled) -> String {
    let class = of.class.as_ref();
    let class = class.map_or(String::new(), |class| {
        format!("<span class=\"class\">{}</span>", escape(class))
    });
    format!("{class}<small>{}</small>", escape(&of.name))
}

pub fn map(out: &mut String, map: &Map) {
    let _ = write!(
        out,
        "<h2 id=\"map\">Map of features</h2>\n<p>{} test pictures{}. Point at one to see it; a \
         class can be shown or hidden.</p>\n<noscript><p>The map needs JavaScript, which is part of \
         this file.</p></noscript>\n\
         <div class=\"card plane\" hidden>\n<div class=\"bar\" id=\"planes\" role=\"group\" \
         aria-label=\"How points are placed\"></div>\n<p id=\"planewords\"></p>\n\
         <div class=\"sides\"><canvas id=\"points\" tabindex=\"0\" role=\"img\"></canvas>\n\
         <div><div id=\"pointed\" aria-live=\"polite\"></div>\n\
         <div class=\"legend\" id=\"legend\" role=\"group\" aria-label=\"Classes\"></div></div></div>\
         </div>\n",
        map.names.len(),
        match map.classes.is_empty() {
            true => "",
            false => ", coloured by class",
        },
    );
}

pub fn attention(out: &mut String, attention: &Result<Attention, String>) -> Result<()> {
    out.push_str("<h2 id=\"attention\">Attention of the class token</h2>\n");
    let attention = match attention {
        Ok(attention) => attention,
        Err(why) => {
            let _ = writeln!(out, "<p>Left out: {}.</p>", escape(why));
            return Ok(());
        }
    };
    let _ = write!(
        out,
        "<p>{}</p>\n<div class=\"bar\" id=\"heatbar\"><label>Colours over the picture \
         <input type=\"range\" id=\"heat\" min=\"0\" max=\"100\" value=\"55\"></label></div>\n",
        escape(&attention.words)
    );
    let pictures: Vec<RgbImage> = attention.looked.iter().map(|l| l.picture.clone()).collect();
    let uris = uris(&pictures)?;
    for (i, (look, uri)) in attention.looked.iter().zip(&uris).enumerate() {
        one_look(out, attention.side, (i, uri.as_str()), look)?;
    }
    Ok(())
}

/// The picture is there once, for all tiles.
fn one_look(out: &mut String, side: usize, (i, uri): (usize, &str), look: &Look) -> Result<()> {
    let crisp = match look.picture.width() <= 64 {
        true => " crisp",
        false => "",
    };
    let class = look.class.as_deref().unwrap_or_default();
    let (class, name) = (escape(class), escape(&look.name));
    let _ = write!(
        out,
        "<div class=\"card looks\" data-look=\"{i}\" style=\"--look: url('{uri}')\">\n<div class=\"tiles2\">\n\
         <figure class=\"tile\"><div class=\"lay{crisp}\" role=\"img\" aria-label=\"{class}: \
         {name}\"></div><figcaption><span class=\"class\">{class}</span><small>{name}</small>\
         </figcaption></figure>\n"
    );
    let mean = ("mean of heads".to_owned(), look.mean());
    let heads = look.heads.iter().enumerate();
    let heads = heads.map(|(head, weights)| (format!("head {}", head + 1), weights.clone()));
    for (at, (what, weights)) in std::iter::once(mean).chain(heads).enumerate() {
        let (class, patches) = weights.split_first().unwrap_or((&0.0, &[]));
        let greatest = patches.iter().copied().fold(0.0, f32::max);
        let facts = format!(
            "most {:.1}%, itself {:.1}%",
            100.0 * greatest,
            100.0 * class
        );
        let _ = writeln!(
            out,
            "<figure class=\"tile\"><div class=\"lay{crisp}\" tabindex=\"0\" role=\"img\" \
             data-at=\"{at}\" aria-label=\"{what}: {facts}\"><img alt=\"\" src=\"{}\"></div>\
             <figcaption>{what}<small>{facts}</small></figcaption></figure>",
            heat(patches, side)?
        );
    }
    out.push_str("</div>\n<output></output></div>\n");
    Ok(())
}

pub fn pairs(out: &mut String, pairs: &Result<Pairs, String>) -> Result<()> {
    out.push_str("<h2 id=\"pairs\">Augmented pairs</h2>\n");
    let pairs = match pairs {
        Ok(pairs) => pairs,
        Err(why) => {
            let _ = writeln!(out, "<p>Left out: {}.</p>", escape(why));
            return Ok(());
        }
    };
    let _ = writeln!(
        out,
        "<p>{}</p>\n<div class=\"pairs\">",
        escape(&pairs.words)
    );
    let each = |pair: &Pair| {
        let views = pair.views.iter().map(|view| view.picture.clone());
        std::iter::once(pair.picture.clone())
            .chain(views)
            .collect::<Vec<_>>()
    };
    let pictures: Vec<RgbImage> = pairs.pairs.iter().flat_map(each).collect();
    let uris = uris(&pictures)?;
    let mut uris = uris.iter();
    for pair in &pairs.pairs {
        let Some(uri) = uris.next() else { break };
        let (width, height) = pair.size;
        let name = escape(&pair.name);
        let _ = write!(
            out,
            "<div class=\"card pair\">\n<figure class=\"tile\"><div class=\"whole\" \
             style=\"aspect-ratio: {width} / {height}\"><img src=\"{uri}\" alt=\"{name}\"{}>\
             <svg viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
            sharp(&pair.picture)
        );
        for (
            i,
            View {
                cut: [x, y, w, h], ..
            },
        ) in pair.views.iter().enumerate()
        {
            let _ = write!(
                out,
                "<rect class=\"cut{i}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"/>"
            );
        }
        let _ = writeln!(
            out,
            "</svg></div><figcaption>{width} × {height}<small>{name}</small></figcaption></figure>"
        );
        for (i, (view, uri)) in pair.views.iter().zip(&mut uris).enumerate() {
            let _ = writeln!(
                out,
                "<figure class=\"tile\"><img src=\"{uri}\" alt=\"view {0}\"{1}><figcaption>\
                 <b class=\"cut{i}\">view {0}</b><small>{2}</small></figcaption></figure>",
                i + 1,
                sharp(&view.picture),
                escape(&view.words.join("; "))
            );
        }
        out.push_str("</div>\n");
    }
    out.push_str("</div>\n");
    Ok(())
}

pub fn protocol(out: &mut String, protocol: &[(String, String)]) {
    out.push_str("<h2 id=\"protocol\">Protocol</h2>\n<dl class=\"card facts\">\n");
    for (what, words) in protocol {
        let wide = match words.chars().count() > 24 {
            true => " class=\"wide\"",
            false => "",
        };
        let (what, words) = (escape(what), escape(words));
        let _ = writeln!(out, "<div{wide}><dt>{what}</dt><dd>{words}</dd></div>");
    }
    out.push_str("</dl>\n");
}
