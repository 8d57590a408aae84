"""The HTML page's style sheet and its little script. Nothing is fetched from anywhere."""

# ruff: noqa: E501 - a rule of the style sheet a line

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from powerbi.render.theme import Theme

SCRIPT = """
const fit=()=>{for(const m of document.querySelectorAll('main')){const s=Math.min(document.documentElement.clientWidth/m.offsetWidth,
(innerHeight-document.querySelector('header').offsetHeight)/m.offsetHeight);m.style.zoom=Math.max(.5,Math.min(s,2));}};
addEventListener('resize',fit);fit();
for(const f of document.querySelectorAll('form.slicer')){f.addEventListener('change',e=>{if(e.target.type==='date')f.submit();});
const d=f.querySelector('details');if(d)d.addEventListener('toggle',()=>{if(!d.open&&d.dirty)f.submit();});
f.addEventListener('input',()=>{if(d)d.dirty=true;});}
addEventListener('click',e=>{for(const d of document.querySelectorAll('details[open]'))if(!d.contains(e.target))d.open=false;});
const tip=document.createElement('div');tip.className='tip';document.body.append(tip);
addEventListener('mousemove',e=>{const t=e.target.closest&&e.target.closest('[aria-label]');
if(!t||!t.closest('.visual')){tip.style.display='none';return;}tip.textContent=t.getAttribute('aria-label');
tip.style.display='block';tip.style.left=Math.min(e.clientX+14,innerWidth-tip.offsetWidth-8)+'px';tip.style.top=(e.clientY+14)+'px';});
"""
LIVE_SCRIPT = """
let seen=null;setInterval(async()=>{try{const r=await fetch('/status');const s=await r.json();
if(seen&&s.refreshed_at!==seen&&!document.querySelector('details[open]'))location.reload();seen=s.refreshed_at;}catch(e){}},4000);
"""


def style_sheet(theme: Theme) -> str:
    """The style sheet in the theme's colours."""
    return f"""
*{{box-sizing:border-box}}body{{margin:0;background:{theme.page};color:{theme.foreground};font-family:{theme.fonts};font-size:12px}}
header{{display:flex;justify-content:space-between;align-items:center;gap:16px;background:#fff;border-bottom:1px solid {theme.grid};padding:0 16px;min-height:40px;flex-wrap:wrap}}
nav a{{display:inline-block;padding:11px 14px;color:{theme.muted};text-decoration:none;font-size:13px;border-bottom:2px solid transparent}}
nav a.here{{color:{theme.foreground};font-weight:600;border-color:{theme.accent}}}nav a:hover{{background:{theme.page}}}
.state{{display:flex;gap:8px;align-items:center;color:{theme.muted};flex-wrap:wrap}}
.chip{{background:{theme.page};border:1px solid {theme.grid};border-radius:12px;padding:3px 10px;color:{theme.foreground};text-decoration:none}}
.reset{{color:{theme.accent};text-decoration:none}}
main{{position:relative;margin:0 auto}}.visual{{position:absolute}}.visual svg{{display:block;overflow:visible;font-family:{theme.fonts}}}
.visual a{{cursor:pointer}}.html{{background:{theme.card};border:1px solid {theme.grid};border-radius:8px;display:flex;flex-direction:column;padding:6px 12px}}
.html:has(details[open]){{z-index:9999!important}}
h3{{margin:4px 2px 6px;font-size:13px;font-weight:600}}.scroll{{overflow:auto;flex:1}}
table{{border-collapse:collapse;width:100%}}th{{position:sticky;top:0;background:{theme.card};text-align:left;color:{theme.muted};font-weight:600;padding:4px 6px;border-bottom:1px solid {theme.accent}}}
td{{padding:4px 6px;white-space:nowrap}}tbody tr:nth-child(even){{background:#FAFAFB}}tbody tr:hover{{background:{theme.page}}}.n{{text-align:right;font-variant-numeric:tabular-nums}}
td a{{color:inherit;text-decoration:none}}tfoot td{{position:sticky;bottom:0;background:{theme.card};font-weight:600;border-top:1px solid {theme.grid}}}
.slicer{{display:flex;flex-direction:column;gap:3px}}.slicer>label{{font-size:11px;color:{theme.muted}}}
.range{{display:flex;gap:6px}}.range input{{flex:1;min-width:0;font:inherit;border:1px solid {theme.grid};border-radius:4px;padding:3px 4px}}
details{{position:relative}}summary{{border:1px solid {theme.grid};border-radius:4px;padding:4px 8px;cursor:pointer;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}}
.list{{position:absolute;left:0;right:0;top:100%;max-height:300px;overflow:auto;background:#fff;border:1px solid {theme.grid};border-radius:4px;box-shadow:0 6px 18px #0002;padding:4px;z-index:50}}
.list label{{display:flex;gap:6px;padding:3px 4px}}.tip{{display:none;position:fixed;background:{theme.foreground};color:#fff;padding:6px 10px;border-radius:6px;white-space:pre;pointer-events:none;z-index:10000;box-shadow:0 4px 14px #0003}}
.list label:hover{{background:{theme.page}}}
"""
